"""The picture of a rollout: what it shows at any size, with and without colour, and what it never does."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.cli import following, printing, rollout_lines
from edgewright_controller.cli.device_signs import SIGNS
from edgewright_controller.cli.ending import Ending
from edgewright_controller.cli.rollout_picture import Picture
from edgewright_controller.cli.rollout_view import Size, clock, folded, frame, shares

Event = operator_pb2.ApplyEvent
README = Path(__file__).parents[2] / "README.md"
BEGAN_MS = 1_700_000_000_000


def progress(state: str = "running", wave: int = 2, waves: int = 3, **view: object) -> Event:
    """A rollout twelve minutes after it began."""
    told = operator_pb2.RolloutView(
        what="apply of fleet.toml", by="alice", created_unix_ms=BEGAN_MS, now_unix_ms=BEGAN_MS + 724_000
    )
    for name, value in view.items():
        setattr(told, name, value)
    return Event(
        rollout=operator_pb2.RolloutProgress(
            rollout="rollout-3", state=state, wave=wave, waves=waves, reason=f"wave {wave} of {waves}", view=told
        )
    )


def device(name: str, state: str, wave: int = 1, reason: str = "") -> operator_pb2.DeviceProgress:
    return operator_pb2.DeviceProgress(device=name, state=state, wave=wave, reason=reason)


def standing(*devices: operator_pb2.DeviceProgress) -> Event:
    return Event(devices=operator_pb2.DevicesProgress(devices=devices))


def ramp() -> Picture:
    """One hundred devices: the first wave done, the second under way with failures, the third to come."""
    second = [*["succeeded"] * 8, *["updating"] * 2, *["offered"] * 6, *["waiting"] * 2, "timed_out", "failed"]
    why = {"failed": "probe speaks: the answer does not match", "timed_out": "no answer within 900 s"}
    devices = [device("jetson-001", "succeeded", 1)]
    devices += [device(f"jetson-{n:03}", state, 2, why.get(state, "")) for n, state in enumerate(second, 2)]
    devices += [device(f"jetson-{n:03}", "waiting", 3) for n in range(22, 101)]
    for n, one in enumerate(one for one in devices if one.state == "updating"):
        one.status.MergeFrom(
            agent_pb2.DeviceStatus(step=agent_pb2.STEP_DOWNLOADING, done_bytes=70 - 40 * n, total_bytes=100)
        )
    event = progress(waits_for="8 devices to answer; the first is called silent in 4 min", waits_s=238.0)
    event.rollout.wave_views.extend(
        [
            operator_pb2.WaveView(number=1, devices=1, what="1"),
            operator_pb2.WaveView(number=2, devices=20, what="ring=early", then="approval"),
            operator_pb2.WaveView(number=3, devices=79, what="100%", then="go on"),
        ]
    )
    picture = Picture()
    picture.take(event, 10.0)
    picture.take(standing(*devices), 10.0)
    return picture


def large(count: int = 10_000) -> Picture:
    """One wave of so many devices, of which one failed."""
    picture = Picture()
    picture.take(progress(wave=1, waves=1), 0.0)
    states = ["failed", *["succeeded"] * (count // 2), *["waiting"] * (count - count // 2 - 1)]
    picture.take(standing(*(device(f"d{n}", state) for n, state in enumerate(states))), 0.0)
    return picture


def lines(picture: Picture, width: int, height: int, now: float = 12.0, *, plain: bool = False) -> list[str]:
    return [line.plain.rstrip() for line in frame(picture, Size(width, height, plain), now)]


def test_the_picture_is_the_one_in_the_readme() -> None:
    text = README.read_text()
    shown = text[text.index("<!-- watch:") :].split("```")[1].removeprefix("text\n")
    assert "\n".join(lines(ramp(), 80, 24)) + "\n" == shown


def test_each_device_has_a_cell_whose_sign_says_its_state_without_colour() -> None:
    row = next(line for line in lines(ramp(), 100, 24) if line.startswith("wave 2"))
    cells = Counter(row.removeprefix("wave 2 ring=early ").split(" ")[0])
    expected = {"succeeded": 8, "updating": 2, "offered": 6, "waiting": 2, "timed_out": 1, "failed": 1}
    assert cells == {SIGNS[state].sign: count for state, count in expected.items()}
    assert row.endswith("10/20, then approval")
    for signs in ({one.sign for one in SIGNS.values()}, {one.plain for one in SIGNS.values()}):
        assert len(signs) == len(SIGNS)


@pytest.mark.parametrize("picture", [Picture, ramp, large], ids=["nothing yet", "ramp", "large"])
def test_no_size_is_overrun(picture: Callable[[], Picture]) -> None:
    drawn = picture()
    for width, height, plain in itertools.product((40, 59, 60, 80, 132, 200), (1, 2, 3, 6, 10, 24, 60), (False, True)):
        shown = frame(drawn, Size(width, height, plain), 12.0)
        assert 0 < len(shown) <= height
        assert max(line.cell_len for line in shown) <= width
        assert not plain or all(line.plain.isascii() for line in shown)


def test_one_failure_among_ten_thousand_is_seen_and_the_row_says_what_a_cell_is() -> None:
    drawn = lines(large(), 80, 24)
    row = next(line for line in drawn if line.startswith("wave 1"))
    assert SIGNS["failed"].sign in row
    assert "5001/10000" in row
    assert row.endswith(" a cell")
    assert any(line.startswith("✗ d0") for line in drawn)


def test_a_row_of_shares_is_in_proportion_and_full() -> None:
    drawn = [one.state for one in shares({"succeeded": 500, "waiting": 499, "failed": 1}, 20)]
    assert Counter(drawn) == {"succeeded": 10, "waiting": 9, "failed": 1}
    assert [one.state for one in shares({"succeeded": 9, "waiting": 9, "failed": 1}, 1)] == ["failed"]
    for cells in range(1, 60):
        assert len(shares({"succeeded": 7000, "updating": 13, "offered": 2, "timed_out": 1}, cells)) == cells
    assert shares({}, 10) == []


def test_many_waves_are_drawn_together_around_the_current_one() -> None:
    picture = Picture()
    picture.take(progress(wave=9, waves=20), 0.0)
    picture.take(standing(*(device(f"d{n}", "waiting", 1 + n // 5) for n in range(100))), 0.0)
    waves = picture.waves()
    assert [(wave.number, wave.last) for wave in folded(waves, 9, 5)] == [(1, 7), (8, 8), (9, 9), (10, 10), (11, 20)]
    assert [(wave.number, wave.last) for wave in folded(waves, 1, 4)] == [(1, 1), (2, 2), (3, 3), (4, 20)]
    assert [(wave.number, wave.last) for wave in folded(waves, 20, 4)] == [(1, 17), (18, 18), (19, 19), (20, 20)]
    for rows in range(1, 25):
        for current in range(21):
            rowed = folded(waves, current, rows)
            assert len(rowed) <= rows
            assert sum(len(wave.names) for wave in rowed) == 100
    assert any(line.startswith("waves 1–") for line in lines(picture, 80, 10))


def test_what_is_waited_for_counts_down_by_the_callers_clock_and_is_gone_at_the_end() -> None:
    picture = ramp()
    assert "waits for 8 devices to answer; the first is called silent in 3:58" in lines(picture, 100, 24, 10.0)
    assert "silent in 3:28" in "".join(lines(picture, 100, 24, 40.0))
    assert "silent in a moment" in "".join(lines(picture, 100, 24, 999.0)), "it is due"
    dated = Picture()
    dated.take(progress(waits_for="approval until 2026-12-05 19:00 UTC", waits_s=7200.0), 10.0)
    assert "waits for [1:59:00] approval until 2026-12-05 19:00 UTC" in lines(dated, 100, 24, 70.0)
    assert "waits for approval until" in "".join(lines(dated, 100, 24, 9999.0))
    assert lines(picture, 100, 24, 70.0)[0].endswith("13:04")
    picture.take(progress("succeeded", ended_unix_ms=BEGAN_MS + 60_000, now_unix_ms=BEGAN_MS + 99_000), 70.0)
    picture.take(Event(result=operator_pb2.ApplyResult(succeeded=True)), 70.0)
    assert "waits for" not in "".join(drawn := lines(picture, 100, 24, 500.0))
    assert drawn[0].endswith("1:00")


def test_a_wrong_clock_shows_no_negative_time() -> None:
    picture = Picture()
    picture.take(progress(created_unix_ms=BEGAN_MS + 10**12), 0.0)
    assert picture.elapsed_s(1.0) == 0.0


def test_failures_are_told_once_for_each_reason_the_newest_first() -> None:
    picture = Picture()
    picture.take(standing(*(device(f"d{n}", "offered") for n in range(9))), 0.0)
    picture.take(standing(*(device(f"d{n}", "failed", 1, "no room") for n in range(5))), 0.0)
    picture.take(standing(device("d7", "timed_out", 1, "no answer")), 0.0)
    drawn = lines(picture, 80, 24)
    assert drawn.index("! d7: no answer") < drawn.index("✗ d4 and 4 others: no room")
    picture.take(standing(device("d7", "offered")), 0.0)
    assert not any(line.startswith("! d7") for line in lines(picture, 80, 24)), "it was offered anew"


def test_how_far_a_device_is_outlasts_news_that_do_not_say_it() -> None:
    picture = ramp()
    assert any("downloading 70 %" in line for line in lines(picture, 80, 24))
    picture.take(standing(device("jetson-010", "updating", 2)), 0.0)
    assert any("downloading 70 %" in line for line in lines(picture, 80, 24))
    picture.take(standing(device("jetson-010", "succeeded", 2)), 0.0)
    assert not any("downloading 70 %" in line for line in lines(picture, 80, 24))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.9, "0:09"), (724, "12:04"), (5400, "1:30:00"), (90_000, "1 d 1:00:00")]
)
def test_a_running_time_reads_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_lines_begin_with_a_count_then_name_what_changes_and_gather_what_changes_alike() -> None:
    told = rollout_lines.Told()
    first = standing(*(device(f"d{n:02}", "offered") for n in range(20)), device("e", "failed", 1, "no room"))
    assert rollout_lines.lines(first, told) == ["21 devices: 20 offered, 1 failed", "e: failed: no room"]
    assert rollout_lines.lines(first, told) == []
    assert rollout_lines.lines(standing(device("d00", "succeeded")), told) == ["d00: succeeded"]
    many = standing(*(device(f"d{n:02}", "updating", 1, "downloading") for n in range(1, 20)))
    assert rollout_lines.lines(many, told) == ["d01 and 18 others: updating"]
    far = device("d01", "updating", 1, "downloading")
    far.status.step = agent_pb2.STEP_DOWNLOADING
    assert rollout_lines.lines(Event(device=far), told) == ["d01: updating (downloading)"]
    assert rollout_lines.lines(standing(device("d01", "updating", 1, "proving")), told) == [], "not how far"


def test_a_line_tells_whom_a_rollout_waits_for_and_until_when() -> None:
    asks = progress("approval", waits_for="approval until 2026-12-05 19:00 UTC")
    assert rollout_lines.lines(asks, rollout_lines.Told()) == [
        "rollout-3: approval, wave 2 of 3; waits for approval until 2026-12-05 19:00 UTC"
    ]


def ended(*, succeeded: bool) -> list[Event]:
    result = operator_pb2.ApplyResult(succeeded=succeeded, summary="succeeded: 1 of 1 devices succeeded")
    return [progress(), standing(device("d1", "succeeded")), Event(result=result)]


@pytest.mark.parametrize(("succeeded", "code"), [(True, 0), (False, 1)])
def test_without_a_terminal_there_are_lines_and_the_exit_code_is_the_results(
    capsys: pytest.CaptureFixture[str], *, succeeded: bool, code: int
) -> None:
    assert following.follow(iter(ended(succeeded=succeeded)), as_json=False) == code
    assert capsys.readouterr().out.splitlines() == [
        "rollout-3: running, wave 2 of 3",
        "1 device: 1 succeeded",
        "succeeded: 1 of 1 devices succeeded",
    ]


def test_json_is_one_event_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    following.follow(iter(ended(succeeded=True)), as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [next(iter(set(one) & {"rollout", "devices", "result"})) for one in told] == ["rollout", "devices", "result"]


def test_on_a_terminal_the_picture_is_drawn_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    terminal = Console(file=screen, force_terminal=True, width=80, height=24, color_system=None)
    monkeypatch.setattr(printing, "out", lambda: terminal)
    assert following.follow(iter(ended(succeeded=True)), as_json=False) == 0
    screen.seek(0)
    drawn = Text.from_ansi(screen.read()).plain
    assert "wave 1 ■" in drawn
    assert drawn.rstrip().endswith("succeeded: 1 of 1 devices succeeded")


def test_leaving_says_that_it_goes_on_and_how_to_see_it_again() -> None:
    def leaves() -> Iterator[Event]:
        yield progress()
        raise KeyboardInterrupt

    with pytest.raises(Ending) as caught:
        following.follow(leaves(), as_json=True)
    assert caught.value.code == 130
    assert "rollout-3 goes on" in str(caught.value)
    assert "edgewright rollout watch rollout-3" in str(caught.value)


def test_events_that_end_without_a_result_are_a_failure() -> None:
    with pytest.raises(Ending) as caught:
        following.follow(iter([progress()]), as_json=True)
    assert caught.value.code == 1
    assert "the controller ended before" in str(caught.value)
