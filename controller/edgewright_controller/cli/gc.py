"""`edgewright gc`: what nobody needs any more on the controller's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import reach
from edgewright_controller.cli.ending import BAD_INPUT, Ending

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgewright_contract.v1 import operator_pb2

_NOTHING = "nothing to collect: all that is on the controller's disk is needed, or was used lately (--unused 0s)"
_TOLD = 200


def gc(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this, nothing is removed")] = False,
    unused: Annotated[
        str, typer.Option("--unused", help="only what nobody made or used for so long, like 90m, 24h, 7d")
    ] = "24h",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show what no device, release, rollout, mandate or way back needs on the controller's disk; with --yes, remove it.

    Records stay: releases, report cards, provenance, logs. What was removed is built or fetched again by the next apply
    that needs it.
    """
    from edgewright_controller.cli import printing
    from edgewright_controller.manifest import quantities

    seconds = 0 if unused == "0s" else quantities.seconds(unused)
    if seconds is None:
        raise Ending(f'--unused: {unused!r} is not a duration with its unit, like "90m", "24h" or "7d"', BAD_INPUT)
    with reach.fleet(config, controller) as fleet:
        answer = fleet.collect_garbage(seconds, remove=yes)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(_page(answer))
    return 0


def _page(answer: operator_pb2.CollectGarbageResponse) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgewright_controller.cli import printing

    store = f"the store has {printing.size(answer.store_bytes)}"
    if not answer.count:
        return Text(f"{_NOTHING}; {store}")
    grid = printing.table("", "what", "name", "size", "last used", "why")
    for one in answer.going[:_TOLD]:
        name = one.name if one.kind == "intermediate" else printing.short(one.name)
        kind = f"{one.kind}: {one.what}" if one.what else one.kind
        grid.add_row(kind, name, printing.size(one.bytes), printing.moment(one.used_unix_ms), one.why)
    more = answer.count - min(_TOLD, len(answer.going))
    rest = f", {more} of them not shown" if more else ""
    counted = f"{printing.count(answer.count, 'thing')}{rest}, {printing.size(answer.bytes)}"
    done = f"removed {counted}; {store} now" if answer.removed else f"{counted} would go; {store}; --yes removes it"
    return Group(grid, Text(done))
