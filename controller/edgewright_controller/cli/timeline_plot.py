"""A rollout's timeline as a picture: a row for each device, by wave, and a colour for each state.

The colours are those of Okabe and Ito, which the colour-blind tell apart too; for those who see none, a cross stands
where a device failed.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import plot_file
from edgewright_controller.cli.device_signs import BAD, ORDER, sign
from edgewright_controller.cli.timeline import Band, Row, Timeline, timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".png", ".svg")
COLOURS: Final = {
    "succeeded": "#009E73",
    "updating": "#E69F00",
    "offered": "#56B4E9",
    "reverting": "#F0E442",
    "reverted": "#0072B2",
    "failed": "#D55E00",
    "timed_out": "#CC79A7",
    "skipped": "#777777",
    "waiting": "#E4E4E4",
}
_OTHER: Final = "#000000"
_SHADE: Final = (0, 0, 0, 0.10)
_WATCHED: Final[dict[str, Any]] = {"facecolor": _SHADE, "edgecolor": (0, 0, 0, 0.3), "hatch": "..", "linewidth": 0}
_HALTED: Final[dict[str, Any]] = {"facecolor": _SHADE, "edgecolor": (0, 0, 0, 0.35), "hatch": "//", "linewidth": 0}
_UNITS: Final = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))

# Up to so many rows, each is labelled with its device; beyond, rows are sorted by how they went.
LABELLED: Final = 40
# Beyond so many, rows in an SVG are pixels: a file of a hundred thousand rectangles opens nowhere.
RASTERED: Final = 2000
WIDTH_IN: Final = 11.0
ROW_IN: Final = 0.26
MOST_ROWS_IN: Final = 8.0
TITLE_ROWS: Final = 0.9  # of a wave, above it, in rows of a small rollout
LEAST_BAND: Final = 0.05  # of the height, for a wave of a large one
MAX_LEVELS: Final = 4  # of labels above each other; more are left out, their lines stay


def check(file: Path) -> None:
    """Whether a picture can be drawn into this file at all. Raises Ending."""
    plot_file.check(file, SUFFIXES)


def write(shown: operator_pb2.ShowRolloutResponse, file: Path) -> None:
    """Draw the timeline into `file`, a PNG or an SVG by its suffix. Raises OSError."""
    import matplotlib as mpl

    picture = io.BytesIO()
    # Text in an SVG stays text, and the same rollout gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgewright", "font.size": 9, "hatch.linewidth": 0.5}):
        suffix = file.suffix.lower().removeprefix(".")
        figure = draw(shown)
        metadata = {"Date": None} if suffix == "svg" else {"Software": "edgewright"}
        figure.savefig(picture, format=suffix, dpi=150, metadata=metadata)
    file.write_bytes(picture.getvalue())


def draw(shown: operator_pb2.ShowRolloutResponse) -> Figure:
    """The timeline as a figure."""
    from matplotlib.figure import Figure

    line = timeline(shown)
    count = sum(len(band.rows) for band in line.bands)
    labelled = count <= LABELLED
    places = list(_places(line.bands, labelled=labelled))
    height = sum(place.height for place in places) + (TITLE_ROWS * len(places) if labelled else 0)
    figure = Figure(figsize=(WIDTH_IN, max(1.0, min(MOST_ROWS_IN, ROW_IN * height)) + 2.3), layout="constrained")
    axes = figure.add_subplot()
    _title(figure, shown)
    unit, seconds = next(((name, size) for name, size in _UNITS if line.end >= 2 * size), ("seconds", 1.0))
    _pauses(axes, line, seconds)
    _rows(axes, places, seconds, labelled=labelled)
    if count > RASTERED:
        for collection in axes.collections:
            collection.set_rasterized(True)
    _marks(axes, line, seconds)
    axes.set_xlim(0, line.end / seconds)
    axes.set_ylim(places[-1].top + places[-1].height + 0.2 if places else 1, -0.2 if labelled else 0)
    axes.set_xlabel(f"{unit} since it began")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend(figure, shown, line)
    return figure


def _title(figure: Figure, shown: operator_pb2.ShowRolloutResponse) -> None:
    view = shown.rollout
    began = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(view.created_unix_ms / 1000)).rstrip()
    who = f" by {view.by}" if view.by else ""
    why = f" ({view.why})" if view.why else ""
    outcome = view.reason if view.reason.startswith(view.state) else f"{view.state}: {view.reason}"
    text = f"{view.rollout}: {view.what}{who}{why}, {began}\n{outcome.removesuffix(': ')}"
    figure.suptitle(_wrapped(text, 110), x=0.01, ha="left", fontsize=11, fontweight="bold")


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.fill(line, width, max_lines=3, placeholder=" …") for line in text.splitlines())


def _rows(axes: Axes, places: Sequence[Place], seconds: float, *, labelled: bool) -> None:
    from matplotlib.collections import PolyCollection

    boxes: dict[str, list[list[tuple[float, float]]]] = {}
    crosses: list[tuple[float, float]] = []
    ticks: list[tuple[float, str]] = []
    for place in places:
        band, size = place.band, place.height / len(place.band.rows)
        rows = band.rows if labelled else sorted(band.rows, key=_went)
        half = size * (0.4 if labelled else 0.5)
        for number, row in enumerate(rows):
            middle = place.top + (number + 0.5) * size
            for span in row.spans:
                start, end = span.start / seconds, span.end / seconds
                corners = [(start, middle - half), (end, middle - half), (end, middle + half), (start, middle + half)]
                boxes.setdefault(span.state, []).append(corners)
            if row.failed_at is not None:
                crosses.append((row.failed_at / seconds, middle))
            if labelled:
                ticks.append((middle, row.device))
        if labelled:
            title, at = f"{band.title}, {band.count}", (0, place.top)
            # On a light ground, for lines cross it.
            ground = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
            bold: dict[str, Any] = {"fontsize": 8, "fontweight": "bold", "bbox": ground, "zorder": 5}
            axes.annotate(title, at, xytext=(2, 2), textcoords="offset points", **bold)
        else:
            ticks.append((place.top + place.height / 2, f"{band.title}\n{band.count}"))
            axes.axhline(place.top, color="black", linewidth=0.8)
    for state in sorted(boxes, key=_order):
        # Where rows are thinner than pixels, a line around each would hide the colour.
        edge = "white" if labelled else "none"
        axes.add_collection(
            PolyCollection(boxes[state], facecolor=_colour(state), edgecolor=edge, linewidth=0.5), autolim=False
        )
    if crosses:
        xs, ys = zip(*crosses, strict=True)
        axes.scatter(xs, ys, marker="x", s=28 if labelled else 12, c="black", linewidths=1.2, zorder=4)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])


@dataclass(frozen=True)
class Place:
    """Where a wave stands, in rows of a small rollout from the top."""

    band: Band
    top: float
    height: float


def _places(bands: Sequence[Band], *, labelled: bool) -> Iterator[Place]:
    """A small rollout has room for a title above each wave; in a large one each wave is high enough for its own."""
    least = LEAST_BAND * sum(len(band.rows) for band in bands)
    top = 0.0
    for band in bands:
        top += TITLE_ROWS if labelled else 0.0
        height = len(band.rows) if labelled else max(len(band.rows), least)
        yield Place(band, top, height)
        top += height


def _went(row: Row) -> tuple[float, str]:
    """Rows of a wave by when the device came to where it stands."""
    return row.spans[-1].start, row.device


def _order(state: str) -> int:
    return ORDER.get(state, len(ORDER))


def _colour(state: str) -> str:
    return COLOURS.get(state, _OTHER)


def _pauses(axes: Axes, line: Timeline, seconds: float) -> None:
    """When nothing was offered on purpose. A pause and a wait for approval are hatched."""
    for span in line.pauses:
        style = _WATCHED if span.state == "watched" else _HALTED
        axes.axvspan(span.start / seconds, span.end / seconds, zorder=3, **style)


def _marks(axes: Axes, line: Timeline, seconds: float) -> None:
    """Lines through all rows, with what they stand for above them; labels that would overlap step up."""
    ends: list[float] = []  # of the last label on each level, in shares of the width
    for mark in line.marks:
        at = mark.at / seconds
        colour = "#B22222" if mark.bad else "#333333"
        axes.axvline(
            at, color=colour, linewidth=1.2 if mark.bad else 0.9, linestyle="-" if mark.bad else (0, (4, 2)), zorder=3
        )
        share = mark.at / line.end
        width = len(mark.label) * 0.0095
        right = share + width > 1.0  # no room to its right
        start, end = (share - width, share) if right else (share, share + width)
        level = next((number for number, taken in enumerate(ends) if taken <= start), len(ends))
        if level >= MAX_LEVELS:
            continue
        ends[level : level + 1] = [end + 0.005]
        axes.annotate(
            mark.label,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-2 if right else 2, 3 + 10 * level),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            ha="right" if right else "left",
        )


def _legend(figure: Figure, shown: operator_pb2.ShowRolloutResponse, line: Timeline) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    counts = Counter(device.state for device in shown.devices)
    was = {span.state for band in line.bands for row in band.rows for span in row.spans}
    handles: list[Patch | Line2D] = [
        Patch(facecolor=_colour(state), label=_said(sign(state).word, counts[state]))
        for state in sorted(was, key=_order)
    ]
    if was & BAD:
        handles.append(Line2D([], [], color="black", marker="x", linestyle="none", label="went wrong here"))
    stood = {pause.state for pause in line.pauses}
    if "watched" in stood:
        handles.append(Patch(label="wave is watched", **_WATCHED))
    if stood - {"watched"}:
        handles.append(Patch(label="paused, or waits for approval", **_HALTED))
    figure.legend(handles=handles, loc="outside lower left", ncols=min(6, len(handles)), frameon=False, fontsize=8)


def _said(word: str, count: int) -> str:
    return f"{word} ({count} now)" if count else word
