"""A rollout in the ledger: what was stored is what was, after every step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from edgewright_controller.gates import GatePolicy
from edgewright_controller.ledger import GenerationTaken, Ledger, NotInLedger, devices, rollouts
from edgewright_controller.rollout import (
    Aborted,
    AfterWave,
    Approved,
    DevicePhase,
    DeviceReported,
    Event,
    Hint,
    Left,
    OnFailure,
    Outcome,
    Paused,
    Resumed,
    Retried,
    RolloutError,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutState,
    RolloutTarget,
    SetDesired,
    Skipped,
    Started,
    Superseded,
    Then,
    Tick,
    Window,
    apply_changes,
    in_two_waves,
    step,
)
from tests.controller.ledger_rows import fill, opened
from tests.controller.rollout_driver import policy

NAMES = ("dev-a", "dev-b", "dev-c", "dev-d")
START = 1_800_000_000.0


def enter(ledger: Ledger, of: RolloutPolicy | None = None, *, first: int = 1) -> RolloutState:
    """A stored rollout of the first release to four enrolled devices, which had the second."""
    new, old = ledger.write_now(lambda c: fill(c, names=" ".join(NAMES)))
    targets = [RolloutTarget(name, new, old, 0) for name in NAMES]
    spec = RolloutSpec(ledger.read_now(rollouts.next_id), in_two_waves(targets, first), of or policy(max_failures=1))
    about = {"manifest": "demo.toml"}
    return ledger.write_now(lambda c: rollouts.create(c, spec, by="operator.admin", about=about, now=START))


def do(ledger: Ledger, state: RolloutState, event: Event, now: float) -> None:
    """As the runner does it: step, store, apply."""
    changes, actions = step(state, event, now)
    ledger.write_now(lambda c: rollouts.commit(c, state.spec.id, changes, actions))
    apply_changes(state, changes)


def same(stored: RolloutState, state: RolloutState) -> None:
    for name in ("spec", "clock", "phase", "wave", "ending", "reason", "since", "devices", "members", "counts"):
        assert getattr(stored, name) == getattr(state, name), name


def test_a_rollout_is_listed_with_its_story(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        state = enter(ledger)
        assert ledger.read_now(rollouts.live) == ["rollout-1"]
        do(ledger, state, Started(), START + 1)
        do(ledger, state, DeviceReported("dev-a", 1, Outcome.SUCCEEDED), START + 2)
        assert ledger.read_now(lambda c: rollouts.counts(c, "rollout-1")) == {
            DevicePhase.SUCCEEDED: 1,
            DevicePhase.OFFERED: 3,
        }
        for name in NAMES[1:]:
            do(ledger, state, DeviceReported(name, 1, Outcome.SUCCEEDED), START + 3)
        assert ledger.read_now(rollouts.live) == []
        row = ledger.read_now(rollouts.every)[0]
        assert (row.id, row.state, row.ended_at, row.created_by) == (
            "rollout-1", RolloutPhase.SUCCEEDED, START + 3, "operator.admin",
        )  # fmt: skip
        assert row.about == {"manifest": "demo.toml"}
        story = ledger.read_now(lambda c: rollouts.history(c, "rollout-1"))
        assert [one.state for one in story if one.device == "dev-a"] == ["offered", "succeeded"]
        assert [one.state for one in story if one.device is None] == ["running", "running", "succeeded"]
        assert ledger.read_now(lambda c: rollouts.standing(c, "rollout-1"))["dev-b"][0] is DevicePhase.SUCCEEDED
        assert ledger.read_now(rollouts.next_id) == "rollout-2"


def test_what_a_step_sets_is_stored_with_what_it_changes(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        state = enter(ledger, first=4)
        changes, actions = step(state, Started(), START)
        assert {type(action) for action in actions} == {SetDesired, Hint}

        def cut_off(connection: Connection) -> None:
            rollouts.commit(connection, "rollout-1", changes, actions)
            raise InterruptedError("before the commit")

        with pytest.raises(InterruptedError):
            ledger.write_now(cut_off)
        assert ledger.read_now(devices.desired) == {}
        same(ledger.read_now(lambda c: rollouts.load(c, "rollout-1")), state)
        ledger.write_now(lambda c: rollouts.commit(c, "rollout-1", changes, actions))
        desired = ledger.read_now(devices.desired)
        assert {(row.device, row.generation) for row in desired.values()} == {(name, 1) for name in NAMES}
        assert {row.reason for row in desired.values()} == {"rollout rollout-1, wave 1 of 1"}


def test_a_device_that_somebody_else_has_set_is_found_out_and_nothing_is_stored(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        state = enter(ledger, first=4)
        ledger.write_now(lambda c: devices.set_desired(c, "dev-c", None, reason="by hand", now_ms=1))
        with pytest.raises(GenerationTaken) as taken:
            do(ledger, state, Started(), START)
        assert taken.value.device == "dev-c"
        assert set(ledger.read_now(devices.desired)) == {"dev-c"}
        do(ledger, state, Superseded("somebody", frozenset({"dev-c"})), START)
        do(ledger, state, Started(), START)
        assert ledger.read_now(devices.desired)["dev-c"].reason == "by hand"
        assert set(ledger.read_now(devices.desired)) == set(NAMES)


def test_which_rollout_has_a_device_is_known(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        state = enter(ledger)
        do(ledger, state, Started(), START)
        live_of = partial(rollouts.live_of, wanted=["dev-a", "dev-b", "elsewhere"])
        assert ledger.read_now(live_of) == {"dev-a": "rollout-1", "dev-b": "rollout-1"}
        do(ledger, state, Superseded("rollout-2", frozenset({"dev-a"})), START)
        assert ledger.read_now(live_of) == {"dev-b": "rollout-1"}
        do(ledger, state, Superseded("rollout-2"), START)
        assert ledger.read_now(live_of) == {}


def test_a_rollout_that_is_not_there_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger, pytest.raises(NotInLedger, match="no rollout 'rollout-9'"):
        ledger.read_now(lambda c: rollouts.load(c, "rollout-9"))


REPORTS = st.builds(
    DeviceReported,
    st.sampled_from(NAMES),
    st.integers(1, 4),
    st.sampled_from(Outcome),
    step=st.sampled_from(["", "downloading", "proving"]),
    reason=st.sampled_from(["", "probe failed"]),
)
SOME = st.sets(st.sampled_from(NAMES), min_size=1, max_size=2).map(frozenset)
COMMANDS = st.one_of(
    st.sampled_from([Paused("me"), Resumed(), Approved("me"), Aborted(), Aborted(revert=True), Retried(None, "me")]),
    st.builds(Retried, SOME),
    st.builds(Skipped, SOME),
)
EVENTS = st.one_of(
    REPORTS,
    REPORTS,
    st.just(Tick()),
    COMMANDS,
    st.builds(Left, st.sampled_from(NAMES), st.just("cordoned"), st.booleans()),
    st.just(Superseded("x", frozenset({"dev-b"}))),
)
HOURS = (
    (),
    (Window(frozenset(range(7)), 0, 60),),
    (Window(frozenset({1, 4}), 1380, 120), Window(frozenset({2}), 0, 1)),
)


@st.composite
def specs(
    draw: st.DrawFn,
) -> tuple[RolloutPolicy, tuple[AfterWave, ...], list[tuple[tuple[Window, ...], str, tuple[Window, ...]]]]:
    """A policy, what follows each of two waves, and each device's windows and time zone."""
    of = RolloutPolicy(
        device_deadline_s=draw(st.sampled_from([50.0, 100.0])),
        gate=GatePolicy(draw(st.integers(0, 2)), 0.0, draw(st.sampled_from([0.0, 40.0]))),
        on_failure=draw(st.sampled_from(OnFailure)),
        patience_s=draw(st.sampled_from([200.0, 600.0])),
        step_deadlines_s=draw(st.sampled_from([{}, {"download": 20.0, "prove": 50.0}, {"check_in": 30.0}])),
        deadline_s=draw(st.sampled_from([None, 400.0])),
        devices_per_minute=draw(st.sampled_from([None, 1, 3])),
    )
    after = tuple(
        AfterWave(draw(st.sampled_from([0.0, 30.0])), draw(st.sampled_from(Then)), f"wave {number}")
        for number in range(draw(st.integers(0, 2)))
    )
    zones = st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"])
    return of, after, [(draw(st.sampled_from(HOURS)), draw(zones), draw(st.sampled_from(HOURS))) for _ in NAMES]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 5.0, 21.0, 59.0, -100.0, 86_400.0])), max_size=25),
    specs(),
    st.integers(1, 4),
)
def test_whatever_happened_the_stored_rollout_is_the_one_that_was(
    events: list[tuple[Event, float]],
    of: tuple[RolloutPolicy, tuple[AfterWave, ...], list[tuple[tuple[Window, ...], str, tuple[Window, ...]]]],
    first: int,
) -> None:
    with TemporaryDirectory() as folder, opened(Path(folder)) as ledger:
        state, now = enter_timed(ledger, of, first), START
        same(ledger.read_now(lambda c: rollouts.load(c, "rollout-1")), state)
        do(ledger, state, Started(), now)
        for event, seconds in events:
            now += seconds
            try:
                do(ledger, state, event, now)
            except RolloutError:
                continue
            stored = ledger.read_now(lambda c: rollouts.load(c, "rollout-1"))
            same(stored, state)
            assert step(stored, Tick(), now + 50) == step(state, Tick(), now + 50)
        generations = {name: row.generation for name, row in ledger.read_now(devices.desired).items()}
        assert all(state.devices[name].generation == generation for name, generation in generations.items())


def enter_timed(
    ledger: Ledger,
    of: tuple[RolloutPolicy, tuple[AfterWave, ...], list[tuple[tuple[Window, ...], str, tuple[Window, ...]]]],
    first: int,
) -> RolloutState:
    new, old = ledger.write_now(lambda c: fill(c, names=" ".join(NAMES)))
    given_policy, after, timing = of
    targets = [RolloutTarget(name, new, old, 0, *when) for name, when in zip(NAMES, timing, strict=True)]
    waves = in_two_waves(targets, first)
    spec = RolloutSpec("rollout-1", waves, given_policy, after[: len(waves)])
    return ledger.write_now(lambda c: rollouts.create(c, spec, by="operator.admin", about={}, now=START))
