"""What `models show` and `models compare` print and draw, from answers as a controller gives them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import model_comparison, model_pages, model_plot
from edgewright_controller.cli.ending import Ending
from edgewright_controller.quality import pareto
from edgewright_controller.quality.divergence import Divergence
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.report_card import Origin
from tests.controller.test_report_card import ROUNDS, card, measured


def printed(what: RenderableType, width: int = 200) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def figures(kl: float, weights: dict[str, int] | None = None) -> Measures:
    found = Divergence(4096, kl, 0.01, 9 * kl, 0.9, 12.0, 1 + kl, 0.04)
    return Measures("gguf", 1000, 562, weights or {"Q4_K": 1000}, divergence=found)


def build(name: str, size: int, kl: float, decode_s: float = 1.0, **changes: Any) -> operator_pb2.BuildView:
    """A build of this quantization; what it decodes takes so many times as long as its parent's does at 2."""
    rounds = [dataclasses.replace(one, decode_s=decode_s * one.decode_s) for one in ROUNDS]
    one = card(quantization=name, size_bytes=size, measures=figures(kl), performance=measured(*rounds))
    said = {
        "build_key": f"key of {name}",
        "artifact": f"{size:064x}",
        "runtime": "gguf",
        "quantization": name,
        "recipe": json.dumps({"options": {"pure": False}}),
        "artifact_bytes": size,
        "card": one.encode().decode(),
        "measures": json.dumps(figures(kl).to_json()),
    }
    return operator_pb2.BuildView(**{**said, **changes})


SMALL, MIDDLE, WORSE, LARGE = (
    build("Q2_K", 60_000_000, 0.5, 0.5),
    build("Q4_K_M", 100_000_000, 0.05),
    build("Q5_K_M", 110_000_000, 0.07, 1.2),
    build("Q8_0", 140_000_000, 0.004, 2.0),
)
REFUSED = build(
    "Q3_K_S", 0, 0.9, card="", artifact="", refused="divergence: mean KL 0.9 nats, at most 0.6\nparity: chat 1 differs"
)


def answer(*builds: operator_pb2.BuildView) -> operator_pb2.ShowModelResponse:
    return operator_pb2.ShowModelResponse(model="smollm2", builds=builds)


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if re.search(rf"^gguf +{name}\b", line))


def test_every_build_is_one_line_with_its_figures() -> None:
    text = printed(model_pages.shown(answer(SMALL, MIDDLE)))
    line = row(text, "Q4_K_M")
    for figure in (
        "100.0 MB",
        "4.50",
        "low",
        "200 B (-50%)",
        "120 (× 1.00)",
        "23.0 (× 2.00)",
        "500 ms",
        "0.05",
        "90.0%",
    ):
        assert figure in line, figure
    assert f"{100_000_000:064x}"[:12] in line
    assert "measured on a processor (2 cores, 1.1 GB, Linux 6), by xllamacpp 1 on cpu with 1 thread" in text


def test_a_refused_build_is_there_with_the_reason() -> None:
    text = printed(model_pages.shown(answer(SMALL, REFUSED)))
    assert row(text, "Q3_K_S").rstrip().endswith("refused")
    assert "gguf Q3_K_S: refused: divergence: mean KL 0.9 nats, at most 0.6" in text
    assert "parity: chat 1 differs" in text
    assert "refused" not in printed(model_pages.shown(answer(SMALL)))


def test_what_must_be_known_of_the_figures_stands_below_them() -> None:
    mixed = figures(0.05, {"Q4_K": 420, "Q5_0": 580})
    odd = card(
        origin=Origin("c" * 64, requantised=True),
        measures=dataclasses.replace(mixed, unproven=("the NPU is not here",)),
        performance=measured(alone=False),
        parent=None,
        parent_unmeasured="both would need 9 bytes",
    )
    text = printed(model_pages.shown(answer(build("Q4_K_M", 100, 0.05, card=odd.encode().decode()))))
    assert "42% Q4_K" in text
    assert "unproven: the NPU is not here" in text
    assert "not compared with its parent: both would need 9 bytes" in text
    assert "the source was quantised before" in text
    assert "* other work took part of the processor" in text
    assert "*" in row(text, "Q4_K_M")


def test_builds_without_a_card_and_with_one_of_another_version_say_so() -> None:
    newer = json.dumps(card().to_json() | {"edgewright_report_card": 2})
    text = printed(model_pages.shown(answer(build("Q8_0", 9, 0.1, card=newer), build("Q6_K", 8, 0.1, card=""))))
    assert "report card format 2; this controller reads 1" in text
    assert "gguf Q6_K: no report card" in text


def test_models_are_listed_with_how_many_builds_each_has() -> None:
    views = [operator_pb2.ModelView(model="smollm2", builds=3, refused=1, smallest_bytes=60_000_000, releases=2)]
    text = printed(model_pages.listed(operator_pb2.ListModelsResponse(models=views)))
    assert re.search(r"smollm2\s+–\s+3\s+1\s+60\.0 MB\s+2", text)
    assert "no model was compiled yet" in printed(model_pages.listed(operator_pb2.ListModelsResponse()))


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], set()),
        ([(1, 1)], {0}),
        ([(1, 3), (2, 2), (3, 1)], {0, 1, 2}),
        ([(1, 3), (2, 3), (3, 1)], {0, 2}),
        ([(1, 1), (1, 1), (2, 2)], {0, 1}),
        ([(2, 2), (1, 2)], {1}),
    ],
)
def test_the_front_has_what_nothing_beats(points: list[tuple[float, ...]], front: set[int]) -> None:
    assert pareto.front(points) == front


def test_a_comparison_marks_both_fronts_and_leaves_out_what_was_refused() -> None:
    found = model_comparison.comparison(answer(LARGE, WORSE, MIDDLE, SMALL, REFUSED))
    assert [point.name for point in found.points if point.best_quality] == ["gguf Q2_K", "gguf Q4_K_M", "gguf Q8_0"]
    assert [point.name for point in found.points if point.best_speed] == ["gguf Q2_K"]
    assert [point.name for point in found.points if point.refused] == ["gguf Q3_K_S"]
    assert found.points[0].tokens_per_s is None, "what was refused was not timed"
    text = printed(model_comparison.table(found))
    assert re.search(r"gguf Q2_K +60\.0 MB +0\.5 +46\.0 +size and KL, size and speed", text)
    assert found.to_json()["builds"][1]["best_quality"] is True


def test_what_is_drawn_has_every_build_and_the_front(tmp_path: Path) -> None:
    found = model_comparison.comparison(answer(LARGE, WORSE, MIDDLE, SMALL, REFUSED))
    near, fast = model_plot.draw(found).axes
    for axes, on_front in ((near, [60, 100, 140]), (fast, [60])):
        (line,) = [line for line in axes.get_lines() if line.get_gid() == "front"]
        places: Any = line.get_xdata()
        assert list(places) == on_front
        drawn = {point.name for point in found.points if axes is near or point.tokens_per_s is not None}
        assert {dots.get_gid() for dots in axes.collections} == drawn
        named = {text.get_text(): text.get_fontweight() for text in axes.texts}
        assert [name for name, weight in named.items() if weight == "bold"] == [
            point.name for point in found.points if round(point.bytes / 1e6) in on_front and not point.refused
        ]
    for name in ("a.png", "a.svg", "a.html"):
        model_plot.write(found, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.html").read_text() == model_plot.page(found), "the same builds give the same bytes"


def test_the_page_needs_nothing_but_itself_and_escapes_what_it_is_given() -> None:
    evil = build("Q2_K", 5, 0.1, quantization="<script>alert(1)</script>")
    page = model_plot.page(model_comparison.comparison(answer(SMALL, evil)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert not re.search(r"@import|url\((?!#)", page)
    assert page.count("<tr") == 3


@pytest.mark.parametrize("name", ["picture.pdf", "picture"])
def test_a_file_that_is_no_picture_is_refused_before_anything_is_asked(name: str) -> None:
    model_plot.check(Path("picture.html"))
    with pytest.raises(Ending, match=r"ends with \.png, \.svg or \.html"):
        model_plot.check(Path(name))
