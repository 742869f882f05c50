"""`edgewright audit`: who did what, to which device and release; and whether nobody changed it since."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import completing, reach
from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

if TYPE_CHECKING:
    from edgewright_contract.v1 import operator_pb2
    from edgewright_controller.ledger.audit import AuditRow


def audit(
    *,
    device: Annotated[
        str, typer.Option("--device", help="only what was done to it", autocompletion=completing.devices)
    ] = "",
    subject: Annotated[str, typer.Option("--subject", help="a device, an operator or a rollout")] = "",
    by: Annotated[str, typer.Option("--by", help="only what this operator or device did")] = "",
    last: Annotated[int, typer.Option("--last", min=0, help="only so many, the newest; 0: all")] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="check the whole log, print only the outcome")] = False,
    head: Annotated[str, typer.Option("--head", help="with --verify: a hash noted earlier, which must be there")] = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show who did what. With --verify, compute every hash here, and say where the log breaks."""
    if verify and (device or subject or by or last):
        raise Ending("--verify checks the whole log: leave the other filters out", BAD_INPUT)
    if head and not verify:
        raise Ending("--head goes with --verify", BAD_INPUT)
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        entries = fleet.audit(device or subject, by, last=last)
        if verify:
            return _verify(entries, head)
        for entry in entries:
            if as_json:
                printing.json_line(entry)
            else:
                sys.stdout.write(_line(entry))
    return 0


def _verify(entries: Iterable[operator_pb2.AuditEntry], head: str) -> int:
    from edgewright_controller.ledger import audit as log

    newest = [log.FIRST]

    def rows() -> Iterator[AuditRow]:
        for one in entries:
            row = log.AuditRow(
                one.number,
                one.at_unix_ms,
                one.actor,
                one.action,
                one.subject,
                one.release,
                one.detail,
                one.previous,
                one.hash,
            )
            newest[0] = row.hash
            yield row

    found = log.first_fault(rows(), head)
    if isinstance(found, log.Broken):
        raise Ending(f"the audit log is broken at entry {found.number}: {found.what}", FAILED)
    sys.stdout.write(f"{found} entries, unbroken; note the head elsewhere: {newest[0]}\n")
    return 0


def _line(entry: operator_pb2.AuditEntry) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.at_unix_ms / 1000))
    what = " ".join(part for part in (entry.action, entry.subject, entry.release[:12]) if part)
    detail = f": {entry.detail}" if entry.detail else ""
    line = f"{entry.number} {at} {entry.actor} {what}{detail}"
    return "".join(sign if sign.isprintable() else "?" for sign in line) + "\n"
