"""Builds of one model side by side: as points of size, divergence and speed, with those that no other one beats."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import model_pages, printing
from edgewright_controller.quality import pareto


@dataclass(frozen=True)
class Point:
    """A build with its figures: bytes, mean KL in nats, tokens a second. None: not known. The last two say whether
    another build is at least as small and as near to the source, or as small and as fast, and better in one."""

    name: str
    runtime: str
    artifact: str
    bytes: int
    kl: float | None
    tokens_per_s: float | None
    refused: bool
    best_quality: bool = False
    best_speed: bool = False


@dataclass(frozen=True)
class Comparison:
    """The points of one model, the smallest first. `hosts` are those on which speeds were measured."""

    model: str
    points: tuple[Point, ...]
    hosts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"model": self.model, "hosts": list(self.hosts), "builds": [asdict(point) for point in self.points]}


def comparison(answer: operator_pb2.ShowModelResponse) -> Comparison:
    """The builds that have figures. What was refused is shown, and is on no front."""
    hosts: dict[str, None] = {}
    points = []
    for line in model_pages.lines(answer):
        if line.measures is None and (line.card is None or line.card.performance is None):
            continue
        own = line.card.performance if line.card else None
        if own is not None and line.card is not None:
            hosts[line.card.host.processor] = None
        divergence = line.measures.divergence if line.measures else None
        kl = divergence.kl if divergence and math.isfinite(divergence.kl) else None
        weights = line.measures.weight_bytes if line.measures else 0
        points.append(
            Point(
                name=line.name,
                runtime=line.build.runtime,
                artifact=line.build.artifact,
                bytes=line.build.artifact_bytes or weights,
                kl=kl,
                tokens_per_s=own.decode_tokens_per_s if own else None,
                refused=bool(line.build.refused),
            )
        )
    near = _front(points, lambda point: point.kl)
    fast = _front(points, lambda point: -point.tokens_per_s if point.tokens_per_s is not None else None)
    marked = (
        Point(**{**asdict(point), "best_quality": place in near, "best_speed": place in fast})
        for place, point in enumerate(points)
    )
    return Comparison(answer.model, tuple(sorted(marked, key=lambda point: (point.bytes, point.name))), tuple(hosts))


def table(found: Comparison) -> RenderableType:
    """The points as a table, with marks."""
    grid = printing.table(None, "build", "size", "KL", "tokens/s", "nothing beats it in", "artifact")
    for point in found.points:
        best = [what for what, on in (("size and KL", point.best_quality), ("size and speed", point.best_speed)) if on]
        grid.add_row(
            Text(point.name, "red" if point.refused else "bold" if best else ""),
            printing.size(point.bytes),
            "–" if point.kl is None else f"{point.kl:.3g}",
            "–" if point.tokens_per_s is None else f"{point.tokens_per_s:.1f}",
            Text("refused", "red") if point.refused else Text(", ".join(best), "green"),
            "" if point.refused else printing.short(point.artifact),
        )
    notes = [Text("no build of it has a report card", "yellow")] if not found.points else []
    if len(found.hosts) > 1:
        notes.append(Text(f"speeds are of different hosts, which do not compare: {', '.join(found.hosts)}", "yellow"))
    return Group(grid, *notes)


def _front(points: list[Point], figure: Any) -> frozenset[int]:
    """The places in `points` on the front of size and this figure, where smaller is better and None is not known."""
    known = [place for place, point in enumerate(points) if figure(point) is not None and not point.refused]
    best = pareto.front([(points[place].bytes, figure(points[place])) for place in known])
    return frozenset(known[place] for place in best)
