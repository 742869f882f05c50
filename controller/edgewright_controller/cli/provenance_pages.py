"""A provenance statement as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgewright_controller.quality.provenance import BUILD_TYPE, PREDICATE, Provenance


def shown(told: Provenance, sha256: str) -> RenderableType:
    """All of one statement."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(told, sha256):
        if value:
            facts.add_row(f"  {name}", Text(value))
    return Group(Text(f"artifact {told.artifact}", "bold"), facts)


def line(told: Provenance) -> str:
    """What a release's page says of it."""
    where = told.origin or f"source {told.source[:12]}"
    label = ", quantised before" if told.requantised else ""
    return f"built from {where}{label} by {told.fleet}'s controller {told.edgewright}, {_moment(told)}"


def _facts(told: Provenance, sha256: str) -> Iterator[tuple[str, str]]:
    yield "statement", sha256
    yield "form", f"{PREDICATE}, {BUILD_TYPE}"
    yield "built by", f"the controller of {told.fleet}, edgewright {told.edgewright}"
    yield "finished", _moment(told)
    yield "source", f"{told.origin} {told.source}".strip()
    yield "", "quantised before it was compiled" if told.requantised else ""
    for file in told.files:
        yield f"    {file.name}", file.sha256
    options = told.recipe.get("options") or {}
    chosen = ", ".join(f"{key}={_told(value)}" for key, value in sorted(options.items()))
    yield "recipe", f"{told.recipe.get('runtime')} {told.recipe.get('quantization')} {chosen}".strip()
    yield "calibration", told.calibration
    yield "toolchain", ", ".join(f"{name} {version}" for name, version in sorted(told.toolchain.items()))
    yield "build key", told.build_key
    yield "report card", told.card


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _moment(told: Provenance) -> str:
    return told.finished.strftime("%Y-%m-%d %H:%M UTC")
