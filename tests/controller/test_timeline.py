"""A rollout's history as a timeline, and the timeline as a picture."""

from __future__ import annotations

import importlib.util
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import timeline_plot
from edgewright_controller.cli.ending import Ending
from edgewright_controller.cli.timeline import TAIL, Mark, Span, timeline

BEGAN_S = 1_700_000_000


def shown(
    changes: list[tuple[float, str, str, str]],
    devices: dict[str, tuple[int, str]],
    *,
    state: str = "succeeded",
    ended: float = 0.0,
) -> operator_pb2.ShowRolloutResponse:
    """A rollout of these `devices` (wave, state), with changes (at, device, state, reason)."""
    answer = operator_pb2.ShowRolloutResponse(
        rollout=operator_pb2.RolloutView(
            rollout="rollout-3",
            what="apply of fleet.toml",
            by="alice",
            why="the new prompt",
            state=state,
            reason="so many devices ended well",
            created_unix_ms=BEGAN_S * 1000,
            ended_unix_ms=int((BEGAN_S + ended) * 1000) if ended else 0,
            now_unix_ms=(BEGAN_S + 90) * 1000,
        ),
        waves=[operator_pb2.WaveView(number=1, what="1"), operator_pb2.WaveView(number=2, what="ring=early")],
    )
    for name, (wave, device_state) in devices.items():
        answer.devices.add(device=name, wave=wave, state=device_state)
    for at, device, now, reason in changes:
        answer.changes.add(device=device, state=now, at_unix_ms=int((BEGAN_S + at) * 1000), reason=reason)
    return answer


def ramp() -> operator_pb2.ShowRolloutResponse:
    """Two waves with a wait for approval between them; the second device fails, which stops it."""
    return shown(
        [
            (0, "", "running", "wave 1 of 2"),
            (0, "d1", "offered", ""),
            (2, "d1", "updating", "downloading"),
            (3, "d1", "updating", "starting"),
            (10, "d1", "succeeded", ""),
            (10, "", "waiting", "wave 1 is being watched"),
            (20, "", "approval", ""),
            (50, "", "running", "approved by bob: fine"),
            (50, "", "running", "wave 2 of 2"),
            (50, "d2", "offered", ""),
            (60, "d2", "failed", "no room"),
            (60, "", "failed", "1 of 2 devices failed"),
        ],
        {"d1": (1, "succeeded"), "d2": (2, "failed")},
        state="failed",
        ended=60,
    )


def test_a_device_waits_until_its_first_change_and_each_state_lasts_until_the_next() -> None:
    line = timeline(ramp())
    end = 60 * (1 + TAIL)
    assert line.end == end
    first, second = (band.rows[0] for band in line.bands)
    assert first.spans == (Span("offered", 0, 2), Span("updating", 2, 10), Span("succeeded", 10, end))
    assert second.spans == (Span("waiting", 0, 50), Span("offered", 50, 60), Span("failed", 60, end))
    assert (first.failed_at, second.failed_at) == (None, 60)
    assert [(band.title, band.count) for band in line.bands] == [
        ("wave 1", "1 device"),
        ("wave 2: ring=early", "1 device"),
    ]


def test_what_happened_to_the_rollout_is_marked_and_where_it_stood_still_too() -> None:
    line = timeline(ramp())
    assert line.marks == (
        Mark("wave 1", 0),
        Mark("waits for approval", 20),
        Mark("approved by bob", 50),
        Mark("wave 2", 50),
        Mark("failed", 60, bad=True),
    )
    assert line.pauses == (Span("watched", 10, 20), Span("waits for approval", 20, 50))


@pytest.mark.parametrize(
    ("before", "reason", "mark"),
    [
        ("approval", "wave 2 of 3", Mark("approved, wave 2", 9)),
        ("paused", "wave 2 of 3", Mark("resumed, wave 2", 9)),
        ("paused", "resumed by bob: lunch is over", Mark("resumed by bob", 9)),
        ("waiting", "wave 1 of 3, retried by bob: the disk is empty now", Mark("retried by bob", 9)),
        ("running", "2 of 3 devices failed; at most 0 may", Mark("stopped", 9, bad=True)),
    ],
)
def test_whoever_let_it_go_on_is_marked(before: str, reason: str, mark: Mark) -> None:
    line = timeline(shown([(5, "", before, "wave 1 of 3"), (9, "", "running", reason)], {"d1": (1, "offered")}))
    assert line.marks[-1] == mark


@pytest.mark.parametrize(
    ("reason", "mark"), [("paused by bob: lunch", "paused by bob"), ("wave 1 of 3 succeeded", "paused")]
)
def test_a_pause_is_marked_also_one_that_was_planned(reason: str, mark: str) -> None:
    assert timeline(shown([(5, "", "paused", reason)], {"d1": (1, "offered")})).marks == (Mark(mark, 5),)


def test_one_that_runs_is_drawn_until_now() -> None:
    line = timeline(shown([(0, "d1", "offered", "")], {"d1": (1, "offered")}, state="running"))
    assert line.end == 90 * (1 + TAIL)
    assert line.bands[0].rows[0].spans == (Span("offered", 0, line.end),)


def test_a_device_that_failed_and_was_tried_again_is_no_failure() -> None:
    changes = [(1, "d1", "offered", ""), (2, "d1", "failed", ""), (3, "d1", "waiting", ""), (4, "d1", "succeeded", "")]
    row = timeline(shown([*changes], {"d1": (1, "succeeded")}, ended=5)).bands[0].rows[0]
    assert row.failed_at is None
    assert [span.state for span in row.spans] == ["waiting", "offered", "failed", "waiting", "succeeded"]


def test_a_clock_that_was_set_back_draws_nothing_backwards() -> None:
    changes = [(10, "d1", "offered", ""), (-(10.0**8), "d1", "updating", ""), (12, "d1", "succeeded", "")]
    line = timeline(shown([*changes], {"d1": (1, "succeeded")}, ended=12))
    for span in line.bands[0].rows[0].spans:
        assert 0 <= span.start <= span.end <= line.end


def many(count: int) -> operator_pb2.ShowRolloutResponse:
    """So many devices in two waves, each of which goes through all states."""
    devices = {f"d{n:05}": (1 if n < count // 10 else 2, "succeeded") for n in range(count)}
    changes = [(0.0, "", "running", "wave 1 of 2"), (30.0, "", "running", "wave 2 of 2")]
    for n, (name, (wave, _)) in enumerate(devices.items()):
        at = 30.0 * (wave - 1) + n * 20 / count
        changes += [(at, name, "offered", ""), (at + 2, name, "updating", ""), (at + 5, name, "succeeded", "")]
    return shown(sorted(changes), devices, ended=60)


def texts(file: Path) -> list[str]:
    return ["".join(one.itertext()) for one in ET.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def test_a_small_rollout_names_devices_waves_outcome_and_who(tmp_path: Path) -> None:
    timeline_plot.write(ramp(), tmp_path / "out.svg")
    said = texts(tmp_path / "out.svg")
    assert {"d1", "d2", "wave 1, 1 device", "wave 2: ring=early, 1 device"} <= set(said)
    assert {"waits for approval", "approved by bob", "failed", "seconds since it began"} <= set(said)
    assert "rollout-3: apply of fleet.toml by alice (the new prompt)" in " ".join(said)
    assert "failed: so many devices ended well" in said
    assert {"succeeded (1 now)", "failed (1 now)", "updating", "went wrong here"} <= set(said)


def test_a_large_rollout_names_waves_and_not_each_device(tmp_path: Path) -> None:
    timeline_plot.write(many(500), tmp_path / "out.svg")
    said = texts(tmp_path / "out.svg")
    assert {"wave 1", "50 devices", "wave 2: ring=early", "450 devices"} <= set(said)
    assert not any(text.startswith("d0") for text in said)


def test_the_same_rollout_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        timeline_plot.write(ramp(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_every_state_is_drawn_in_a_colour_of_its_own_and_no_label_overlaps_another() -> None:
    from PIL import Image

    assert len(set(timeline_plot.COLOURS.values())) == len(timeline_plot.COLOURS)
    figure, picture = timeline_plot.draw(ramp()), io.BytesIO()
    figure.savefig(picture, format="png")
    found = Image.open(picture).convert("RGB").getcolors(1 << 24)
    assert found is not None
    pixels = {colour for _, colour in found}
    for state in ("succeeded", "updating", "offered", "failed", "waiting"):
        assert tuple(bytes.fromhex(timeline_plot.COLOURS[state][1:])) in pixels, state
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(one.overlaps(other) for n, one in enumerate(labels) for other in labels[n + 1 :])


def test_a_png_is_a_png(tmp_path: Path) -> None:
    timeline_plot.write(ramp(), tmp_path / "OUT.PNG")
    assert (tmp_path / "OUT.PNG").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(("name", "why"), [("out.pdf", "'.pdf' is no picture"), ("out", "no suffix")])
def test_another_suffix_is_refused_before_anything_is_asked(name: str, why: str) -> None:
    with pytest.raises(Ending) as caught:
        timeline_plot.check(Path(name))
    assert caught.value.code == 2
    assert why in str(caught.value)
    assert ".png or .svg" in str(caught.value)
    timeline_plot.check(Path("fine.svg"))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(Ending) as caught:
        timeline_plot.check(Path("out.png"))
    assert "pip install 'edgewright[plot]'" in str(caught.value)
