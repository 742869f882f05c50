"""The comparison of a model's builds as a picture, or as a page that needs nothing but itself.

Two panels share the size of the artifact: below it the divergence from the source, and the speed of decoding. A line
joins what no other build beats; what was refused is crossed.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgewright_controller.cli import plot_file, printing
from edgewright_controller.cli.model_comparison import Comparison, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".png", ".svg", ".html")
_COLOURS: Final = {"gguf": "#1F77B4", "mlx": "#D6711F", "onnx": "#3A8F3A"}
_OTHER: Final = "#777777"
# Beyond so many, only those on a front have their name beside them.
LABELLED: Final = 25

_STYLE: Final = (
    "body{font-family:sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse;margin-top:1em}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    ".best{font-weight:bold}.refused{color:#b22222}svg{max-width:100%;height:auto}"
)


def check(file: Path) -> None:
    """Whether it can be drawn into this file at all. Raises Ending."""
    plot_file.check(file, SUFFIXES)


def write(found: Comparison, file: Path) -> None:
    """Draw it into `file`, by its suffix. Raises OSError."""
    suffix = file.suffix.lower().removeprefix(".")
    if suffix == "html":
        file.write_text(page(found), encoding="utf-8")
    else:
        file.write_bytes(_picture(found, suffix))


def page(found: Comparison) -> str:
    """One HTML document: the picture and the figures behind it. It names no other file and no address."""
    svg = _picture(found, "svg").decode("utf-8")
    rows = "".join(_row(point) for point in found.points)
    title = html.escape(f"Builds of {found.model}")
    heads = "".join(f"<th>{name}</th>" for name in ("build", "size", "KL (nats)", "tokens/s", "nothing beats it in"))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"</head>\n<body><h1>{title}</h1>\n{svg[svg.index('<svg') :]}\n"
        f"<table><tr>{heads}</tr>{rows}</table>\n<p>{html.escape(_about(found))}</p></body></html>\n"
    )


def draw(found: Comparison) -> Figure:
    """Both panels as a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    near, fast = figure.subplots(1, 2)
    named = len(found.points) <= LABELLED
    _panel(near, found.points, lambda point: point.kl, lambda point: point.best_quality, named=named)
    near.set_ylabel("mean KL from the source, nats (lower is better)")
    if any(point.kl for point in found.points):
        near.set_yscale("log")
    _panel(fast, found.points, lambda point: point.tokens_per_s, lambda point: point.best_speed, named=named)
    fast.set_ylabel("tokens a second (higher is better)")
    for axes in (near, fast):
        axes.set_xlabel("size, MB (smaller is better)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.margins(0.12)
    figure.suptitle(f"Builds of {found.model}", x=0.01, ha="left", fontsize=12, fontweight="bold")
    _legend(figure, found)
    return figure


def _panel(
    axes: Axes,
    points: Sequence[Point],
    figure_of: Callable[[Point], float | None],
    is_best: Callable[[Point], bool],
    *,
    named: bool,
) -> None:
    best: list[tuple[float, float]] = []
    for point in points:
        value = figure_of(point)
        if value is None:
            continue
        at = (point.bytes / 1e6, value)
        on_front = is_best(point)
        style: dict[str, Any] = {"color": _COLOURS.get(point.runtime, _OTHER), "zorder": 3, "gid": point.name}
        if point.refused:
            axes.scatter(*at, marker="x", s=45, **style)
        else:
            axes.scatter(*at, marker="o", s=55, edgecolors="black", linewidths=1.4 if on_front else 0.0, **style)
        if on_front:
            best.append(at)
        if named or on_front:
            weight = "bold" if on_front else "normal"
            axes.annotate(point.name, at, xytext=(5, 5), textcoords="offset points", fontsize=7, fontweight=weight)
    if best:
        best.sort()
        axes.plot(*zip(*best, strict=True), color="black", linewidth=1, linestyle=(0, (4, 2)), zorder=2, gid="front")


def _legend(figure: Figure, found: Comparison) -> None:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"marker": "o", "linestyle": "none"}
    runtimes = sorted({point.runtime for point in found.points})
    handles = [Line2D([], [], color=_COLOURS.get(name, _OTHER), label=name, **dot) for name in runtimes]
    handles.append(Line2D([], [], color="black", linestyle=(0, (4, 2)), label="no other build beats these"))
    if any(point.refused for point in found.points):
        handles.append(Line2D([], [], color="black", marker="x", linestyle="none", label="refused"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8)


def _picture(found: Comparison, suffix: str) -> bytes:
    import matplotlib as mpl

    picture = io.BytesIO()
    # Text in an SVG stays text, and the same builds give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgewright", "font.size": 9}):
        silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        metadata = silent if suffix == "svg" else {"Software": "edgewright"}
        draw(found).savefig(picture, format=suffix, dpi=150, metadata=metadata)
    return picture.getvalue()


def _row(point: Point) -> str:
    best = [what for what, on in (("size and KL", point.best_quality), ("size and speed", point.best_speed)) if on]
    kind = "refused" if point.refused else "best" if best else ""
    cells = (
        point.name,
        printing.size(point.bytes),
        "–" if point.kl is None else f"{point.kl:.3g}",
        "–" if point.tokens_per_s is None else f"{point.tokens_per_s:.1f}",
        "refused" if point.refused else ", ".join(best),
    )
    return f'<tr class="{kind}">{"".join(f"<td>{html.escape(cell)}</td>" for cell in cells)}</tr>'


def _about(found: Comparison) -> str:
    return f"Speeds were measured on {', '.join(found.hosts)}." if found.hosts else "No speed was measured."
