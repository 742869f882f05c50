"""The fleet's history on a terminal. Values in, printable things out."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing

_STYLES: Final = {"succeeded": "green", "failed": "red", "aborted": "red", "held": "red", "reverted": "yellow"}


def listed(answer: operator_pb2.HistoryResponse) -> RenderableType:
    """Two lines a change: when, who, what was done to what and how it ended; and below it the rest, with the reason."""
    if not answer.entries:
        return Text("nothing was changed yet; `edgewright apply MANIFEST` begins")
    lines: list[RenderableType] = []
    for entry in answer.entries:
        head = Text(f"{printing.second(entry.at_unix_ms)}  {entry.by}: {entry.action} {entry.subject}".rstrip())
        if entry.outcome:
            head += Text(f", {entry.outcome}", _STYLES.get(entry.outcome, ""))
        lines.append(head)
        if rest := "; why: ".join(part for part in (entry.what, entry.why) if part):
            lines.append(Text(f"    {rest}" if entry.what or not entry.why else f"    why: {entry.why}", "dim"))
    return Group(*lines)
