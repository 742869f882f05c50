"""Releases on a terminal: all of them in one table, and one of them on a page. Values in, printable things out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgewright_contract.release import Probe, Release
from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing, provenance_pages
from edgewright_controller.quality import provenance as statements


def listed(answer: operator_pb2.ListReleasesResponse) -> RenderableType:
    """One row a release; `serving` is how many devices serve it, of how many that should."""
    if not answer.releases:
        return Text("no release yet; `edgewright apply MANIFEST` makes the first")
    table = printing.table(None, "release", "made", "model", "profile", "size", "serving", "state")
    for view in answer.releases:
        table.add_row(
            printing.short(view.release),
            printing.moment(view.created_unix_ms),
            view.model,
            view.profile,
            printing.size(view.artifact_bytes),
            f"{view.devices_active} of {view.devices_desired}",
            Text(*_state(view)),
        )
    return table


def shown(view: operator_pb2.ReleaseView, release: Release, recipe: Mapping[str, Any] | None) -> RenderableType:
    """All of one release."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(view, release, recipe):
        if value:
            facts.add_row(f"  {name}", Text(value))
    return Group(Text(f"release {view.release}", "bold"), facts)


def _facts(
    view: operator_pb2.ReleaseView, release: Release, recipe: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    yield "model", f"{release.model} for {release.profile}"
    yield "made", printing.moment(view.created_unix_ms)
    yield "runs on", f"{release.runtime} on {release.accelerator}, {printing.size(release.memory_bytes)} of memory"
    yield "artifact", f"{release.artifact}, {printing.size(view.artifact_bytes)}"
    yield "engine", release.engine
    yield "recipe", _recipe(recipe) if recipe is not None else "not known: an older controller built it"
    yield "provenance", _provenance(view)
    yield "options", _pairs(release.options)
    for probe in release.probes:
        yield f"probe {probe.name}", _probe(probe)
    yield "release epoch", str(view.release_epoch)
    yield "devices", f"{view.devices_active} serve it, {view.devices_desired} should"
    if view.rolled_back_by:
        again = "`edgewright apply --again` releases it"
        yield "rolled back", f"by {view.rolled_back_by}, {printing.moment(view.rolled_back_unix_ms)}; {again}"
    if view.collected:
        yield (
            "collected",
            "its artifact is not whole in the store; an apply of the manifest that made it builds it again",
        )


def _provenance(view: operator_pb2.ReleaseView) -> str:
    if not view.provenance:
        return "none: it was shipped prebuilt, or built by an older controller"
    if not view.statement:
        return f"{view.provenance}, whose statement is not in the store any more"
    try:
        told = statements.parse(view.statement.encode(), view.provenance)
    except statements.ProvenanceError as error:
        return f"{view.provenance}: {error}"
    return f"{view.provenance}, {provenance_pages.line(told)}"


def _state(view: operator_pb2.ReleaseView) -> tuple[str, str]:
    if view.rolled_back_by:
        return f"rolled back by {view.rolled_back_by}", "red"
    return ("collected", "yellow") if view.collected else ("", "")


def _recipe(recipe: Mapping[str, Any]) -> str:
    options = _pairs(recipe.get("options", {}))
    return " ".join(part for part in (str(recipe["runtime"]), str(recipe["quantization"]), options) if part)


def _pairs(values: Mapping[str, Any]) -> str:
    shown = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in sorted(values.items())
    }
    return ", ".join(f"{name}={value[:12] if name == 'chat_template' else value}" for name, value in shown.items())


def _probe(probe: Probe) -> str:
    wanted = probe.expect or (f"/{probe.expect_regex}/" if probe.expect_regex else "any answer")
    return f"{probe.prompt} → {wanted}"
