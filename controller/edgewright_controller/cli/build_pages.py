"""Builds on a terminal, in one table. Values in, printable things out."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing

_STYLES = {"built": "green", "failed": "red", "running": "cyan"}


def listed(answer: operator_pb2.ListBuildsResponse) -> RenderableType:
    """One row a build; a failed one's reason is its first line, the rest is in the log."""
    if not answer.builds:
        return Text("no build yet; `edgewright apply MANIFEST` makes those that it needs")
    table = printing.table(None, "build", "began", "model", "recipe", "took", "state", "")
    for view in answer.builds:
        took = f"{(view.ended_ms - view.began_ms) / 1000:.0f} s" if view.ended_ms else ""
        table.add_row(
            printing.short(view.build_key),
            printing.moment(view.began_ms),
            view.model,
            view.recipe,
            took,
            Text(view.state, _STYLES.get(view.state, "")),
            Text(view.reason.partition("\n")[0] or printing.short(view.artifact)),
        )
    return table
