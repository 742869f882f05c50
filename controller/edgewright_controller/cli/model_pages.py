"""Models and their builds as text: one table of report cards, and below it what the figures need to be understood."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing
from edgewright_controller.quality import report_card
from edgewright_controller.quality.divergence import MeasureError
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.performance import Performance
from edgewright_controller.quality.report_card import CardError, Host, ReportCard

_NONE = "–"
_COLUMNS = (
    *("format", "recipe", "size", "bits", "class", "memory", "prompt/s", "tokens/s", "first token"),
    *("KL", "same top", "perplexity", "artifact"),
)
_SHOWN_OPTIONS = 3
_WORTH_TELLING = 0.005


@dataclass(frozen=True)
class Line:
    """One build, its documents read. `card` is None for one that was refused, prebuilt, or of another version."""

    build: operator_pb2.BuildView
    card: ReportCard | None
    measures: Measures | None
    unreadable: str = ""

    @property
    def name(self) -> str:
        """What the build is called beside the others of its model."""
        options = self._options()
        return f"{self.build.runtime} {self.build.quantization}{f' ({options})' if options else ''}"

    @property
    def recipe(self) -> str:
        """The recipe without its format."""
        return self.name.partition(" ")[2]

    def _options(self) -> str:
        try:
            options = json.loads(self.build.recipe or "{}").get("options", {})
        except (ValueError, AttributeError):
            return ""
        told = [f"{key}={_told(value)}" for key, value in sorted(options.items()) if value not in (False, "", None)]
        return ", ".join(told[:_SHOWN_OPTIONS]) + (", …" if len(told) > _SHOWN_OPTIONS else "")


def lines(answer: operator_pb2.ShowModelResponse) -> list[Line]:
    """The builds with their documents, in the controller's order. What cannot be read is left out of its line."""
    return [_line(build) for build in answer.builds]


def listed(answer: operator_pb2.ListModelsResponse) -> RenderableType:
    """The models, with how many builds each has."""
    if not answer.models:
        return Text("no model was compiled yet; `edgewright apply MANIFEST --build-only` compiles without a rollout")
    table = printing.table(None, "model", "built", "builds", "refused", "smallest", "releases")
    for view in answer.models:
        table.add_row(
            view.model,
            printing.moment(view.built_unix_ms),
            str(view.builds),
            Text(str(view.refused), "red" if view.refused else ""),
            printing.size(view.smallest_bytes) if view.smallest_bytes else _NONE,
            str(view.releases),
        )
    return table


def shown(answer: operator_pb2.ShowModelResponse) -> RenderableType:
    """All report cards of a model as one table."""
    found = lines(answer)
    table = printing.table(None, *_COLUMNS)
    for line in found:
        table.add_row(*_row(line))
    return Group(table, *(Text(f"  {note}", style) for note, style in _notes(found)))


def _row(line: Line) -> Iterator[Text]:
    build, card, measures = line.build, line.card, line.measures
    style = "red" if build.refused else ""
    for value in (build.runtime, line.recipe, printing.size(build.artifact_bytes) if build.artifact_bytes else _NONE):
        yield Text(value, style)
    yield Text(f"{measures.bits:.2f}" if measures else _NONE, style)
    yield Text(measures.precision.value if measures else _NONE, style)
    own = card.performance if card else None
    saved, prefill, decode = (
        (card.memory_saved, card.prefill_speed_up, card.decode_speed_up) if card else (None, None, None)
    )
    yield Text(f"{printing.size(own.peak_bytes)}{_saved(saved)}" if own else _NONE)
    yield Text(f"{own.prefill_tokens_per_s:.0f}{_times(prefill)}{_mark(own)}" if own else _NONE)
    rate = own.decode_tokens_per_s if own else None
    yield Text(f"{rate:.1f}{_times(decode)}{_mark(own)}" if own and rate else _NONE)
    yield Text(f"{own.first_token_s * 1000:.0f} ms" if own else _NONE)
    found = measures.divergence if measures else None
    yield Text(f"{found.kl:.3g}" if found else _NONE, style)
    yield Text(f"{found.same_top:.1%}" if found else _NONE, style)
    yield Text(f"× {found.perplexity_ratio:.3f}" if found else _NONE, style)
    if build.refused:
        yield Text("refused", style)
    elif build.collected:
        yield Text(f"{printing.short(build.artifact)} (collected)", "yellow")
    else:
        yield Text(printing.short(build.artifact))


def _notes(found: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """What must be said beside the figures, each once."""
    for line in found:
        if line.build.refused:
            first, *others = line.build.refused.splitlines()
            yield f"{line.name}: refused: {first}", "red"
            for other in others[:4]:
                yield f"    {other.strip()}", "red"
    cards = [(line, line.card) for line in found if line.card is not None]
    for line, card in cards:
        if shares := _fallbacks(card):
            yield f"{line.name}: of other types than most of its weights: {shares}", "dim"
        for why in card.unproven:
            yield f"{line.name}: unproven: {why}", "yellow"
        if card.unmeasured:
            yield f"{line.name}: speed and memory not measured: {card.unmeasured}", "yellow"
        elif card.parent_unmeasured:
            yield f"{line.name}: not compared with its parent: {card.parent_unmeasured}", "dim"
    for line in found:
        if line.unreadable:
            yield f"{line.name}: {line.unreadable}", "yellow"
        elif line.card is None and not line.build.refused:
            yield f"{line.name}: no report card: shipped prebuilt, or built by an older controller", "dim"
    if any(card.origin.requantised for _, card in cards):
        yield "the source was quantised before: every figure is relative to that", "yellow"
    measured = [card for _, card in cards if card.performance is not None]
    for host, engines in _hosts(measured):
        yield f"measured on {_host(host)}, by {engines}; in brackets: against the unquantised parent there", "dim"
    if any(card.performance is not None and card.performance.disturbed for card in measured):
        yield (
            "* other work took part of the processor meanwhile: rates are too low, and by much, not compared",
            "yellow",
        )


def _line(build: operator_pb2.BuildView) -> Line:
    card = measures = None
    try:
        card = report_card.from_json(json.loads(build.card)) if build.card else None
        measures = card.measures if card else None
        if measures is None and build.measures:
            measures = Measures.from_json(json.loads(build.measures))
    except (CardError, MeasureError, ValueError) as error:
        return Line(build, card, measures, f"its report card cannot be read: {error}")
    return Line(build, card, measures)


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _hosts(cards: Sequence[ReportCard]) -> Iterator[tuple[Host, str]]:
    hosts: dict[Host, dict[str, None]] = {}
    for card in cards:
        assert card.performance is not None
        own = card.performance
        told = f"{own.engine} {own.version} on {own.accelerator} with {printing.count(own.threads, 'thread')}"
        hosts.setdefault(card.host, {})[told] = None
    for host, engines in hosts.items():
        yield host, ", ".join(engines)


def _host(host: Host) -> str:
    cores, memory = printing.count(host.cores, "core"), printing.size(host.memory_bytes)
    return f"{host.processor} ({cores}, {memory}, {host.system})"


def _fallbacks(card: ReportCard) -> str:
    """Types that a person should know of; norms, which no recipe rounds, are a fraction of a percent."""
    weights = sum(card.measures.types.values()) if card.measures else 0
    shares = [(count / weights, name) for name, count in card.fallbacks.items() if weights]
    return ", ".join(f"{share:.0%} {name}" for share, name in sorted(shares, reverse=True) if share >= _WORTH_TELLING)


def _mark(own: Performance) -> str:
    return " *" if own.disturbed else ""


def _saved(share: float | None) -> str:
    return "" if share is None else f" ({-share:+.0%})"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" (× {ratio:.2f})"
