from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_agent.database import StateDamaged
from edgewright_agent.lifecycle_state import Act, DownloadsPaused, DownloadsResumed, Fault, Lifecycle, Outcome, Step
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.update import ActFailed, Updates
from edgewright_contract.release import Probe, Release
from edgewright_contract.targets import ImageTarget


def known(mark: str) -> KnownRelease:
    release = Release("smollm2", "jetson", "gguf", mark * 64, "cpu", 1, {}, (Probe("hi", "Hi", timeout_s=7),))
    return KnownRelease(release, ImageTarget("model", "smollm2", "gguf-cpu", "gguf", mark * 64, 1, "b" * 64, 1))


class FullDisk(StateStore):
    """A store whose next `failures` saves find no room."""

    failures = 0

    def save(self, state: Lifecycle, release: KnownRelease | None = None) -> None:
        if self.failures:
            self.failures -= 1
            raise StateDamaged("database or disk is full")
        super().save(state, release)


class ScriptedActs:
    """Does nothing but note what was saved when it was asked; `on` says what else happens at an act."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.done: list[tuple[Act, Step]] = []
        self.stopped: list[Act] = []
        self.on: dict[Act, Exception | asyncio.Event] = {}

    async def perform(self, act: Act, state: Lifecycle) -> None:
        self.done.append((act, self._store.load().step))
        happens = self.on.get(act)
        if isinstance(happens, Exception):
            raise happens
        if happens is not None:
            try:
                await happens.wait()
            finally:
                await asyncio.sleep(0.05)  # stopping takes its time, and must be waited for
                self.stopped.append(act)


class Bench:
    """An executor on a real store, with a clock that can be turned."""

    def __init__(self, folder: Path) -> None:
        self.store = FullDisk(folder / "agent.sqlite")
        self.acts = ScriptedActs(self.store)
        self.changes: list[Lifecycle] = []
        self.ahead = 0.0
        self.updates = self.executor()

    def executor(self) -> Updates:
        return Updates(self.store, self.acts, self.changes.append, lambda: time.monotonic() + self.ahead)

    async def until(self, what: Callable[[Lifecycle], bool]) -> Lifecycle:
        deadline = time.monotonic() + 10
        while not what(self.updates.state):
            assert time.monotonic() < deadline, self.updates.state
            await asyncio.sleep(0.005)
        return self.updates.state

    async def begun(self, act: Act) -> None:
        """Until `act` runs: it starts after its state was saved and shown."""
        await self.until(lambda _: bool(self.acts.done) and self.acts.done[-1][0] is act)

    async def rest(self) -> Lifecycle:
        return await self.until(lambda state: state.step is Step.IDLE and state.outcome is not Outcome.NONE)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_each_state_is_saved_before_its_act(bench: Bench) -> None:
    await bench.updates.assign(1, known("a"))
    state = await bench.rest()
    assert (state.outcome, state.active) == (Outcome.SUCCEEDED, known("a").release.digest)
    assert [(act.value, step) for act, step in bench.acts.done] == [
        ("plan", Step.PLANNING),
        ("download", Step.DOWNLOADING),
        ("verify", Step.VERIFYING),
        ("start", Step.STARTING),
        ("prove", Step.PROVING),
        ("probe", Step.PROBING),
        ("switch", Step.SWITCHING),
        ("drain", Step.DRAINING),
    ]
    assert bench.store.load() == state
    assert bench.store.known(state.active) == known("a")
    assert bench.changes[-1] == state


async def test_a_failed_act_reverts_with_its_reason(bench: Bench) -> None:
    bench.acts.on[Act.START] = ActFailed(Fault.ENGINE_FAILED, "it aborted")
    await bench.updates.assign(1, known("a"))
    state = await bench.rest()
    assert (state.outcome, state.fault, state.reason) == (Outcome.FAILED, Fault.ENGINE_FAILED, "it aborted")
    assert bench.acts.done[-1][0] is Act.REVERT


async def test_a_fault_of_ours_is_a_failed_update_and_not_the_end(bench: Bench) -> None:
    bench.acts.on[Act.PROVE] = ZeroDivisionError("oops")
    await bench.updates.assign(1, known("a"))
    state = await bench.rest()
    assert (state.fault, state.reason) == (Fault.INTERNAL, "prove: ZeroDivisionError('oops')")
    await bench.updates.assign(2, None)
    assert (await bench.until(lambda state: state.generation == 2)).outcome is Outcome.SUCCEEDED


async def test_a_newer_generation_waits_until_the_running_act_has_stopped(bench: Bench) -> None:
    bench.acts.on[Act.DOWNLOAD] = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.DOWNLOAD)
    del bench.acts.on[Act.DOWNLOAD]
    await bench.updates.assign(2, known("c"))
    assert bench.acts.stopped == [Act.DOWNLOAD]
    state = await bench.rest()
    assert (state.generation, state.outcome, state.active) == (2, Outcome.SUCCEEDED, known("c").release.digest)


async def test_an_act_that_does_not_notice_that_it_is_cancelled_brings_nothing_and_holds_up_nobody(
    bench: Bench,
) -> None:
    class Deaf(ScriptedActs):
        async def perform(self, act: Act, state: Lifecycle) -> None:
            try:
                await super().perform(act, state)
            except asyncio.CancelledError:
                return  # as asyncio.wait_for may, before Python 3.12

    bench.acts = Deaf(bench.store)
    bench.updates = bench.executor()
    bench.acts.on[Act.DOWNLOAD] = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.DOWNLOAD)
    del bench.acts.on[Act.DOWNLOAD]
    await asyncio.wait_for(bench.updates.assign(2, known("c")), 30)
    state = await bench.rest()
    assert (state.generation, state.outcome, state.active) == (2, Outcome.SUCCEEDED, known("c").release.digest)
    assert bench.acts.done.count((Act.VERIFY, Step.VERIFYING)) == 1


async def test_a_pause_stops_the_running_download_and_its_end_starts_it_again(bench: Bench) -> None:
    bench.acts.on[Act.DOWNLOAD] = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.DOWNLOAD)
    await bench.updates.feed(DownloadsPaused())
    assert (bench.acts.stopped, bench.store.load().paused) == ([Act.DOWNLOAD], True)
    await bench.until(lambda _: [act for act, _ in bench.acts.done].count(Act.DOWNLOAD) == 2)  # anew, to wait
    del bench.acts.on[Act.DOWNLOAD]
    await bench.updates.feed(DownloadsResumed())
    assert (await bench.rest()).outcome is Outcome.SUCCEEDED
    assert bench.acts.stopped == [Act.DOWNLOAD, Act.DOWNLOAD]


async def test_an_act_that_never_ends_is_stopped_at_its_deadline(bench: Bench) -> None:
    bench.acts.on[Act.PROBE] = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.PROBE)
    bench.ahead = 71.0  # the probe's own 7 s and a margin on top of the step's minute
    await bench.updates.progressed()  # news of a download that is over changes nothing
    assert bench.updates.state.step is Step.PROBING
    bench.ahead = 73.0
    await bench.updates.assign(1, known("a"))  # any event sets the alarm anew, by the turned clock
    state = await bench.rest()
    assert (state.fault, state.outcome) == (Fault.DEADLINE, Outcome.FAILED)
    assert bench.acts.stopped == [Act.PROBE]


async def test_what_cannot_be_saved_does_not_happen(bench: Bench) -> None:
    bench.store.failures = 1
    with pytest.raises(StateDamaged):
        await bench.updates.assign(1, known("a"))
    assert (bench.updates.state, bench.acts.done) == (Lifecycle(), [])
    await bench.updates.assign(1, known("a"))
    assert (await bench.rest()).outcome is Outcome.SUCCEEDED


async def test_a_state_that_cannot_be_told_is_acted_upon_all_the_same(bench: Bench) -> None:
    def cannot(_: Lifecycle) -> None:
        raise StateDamaged("database is locked")

    bench.updates = Updates(bench.store, bench.acts, cannot)
    await bench.updates.assign(1, known("a"))
    assert (await bench.rest()).outcome is Outcome.SUCCEEDED
    acts = [act for act, _ in bench.acts.done]
    assert acts[:3] == [Act.PLAN, Act.DOWNLOAD, Act.VERIFY]
    assert len(acts) == 8


async def test_the_end_of_an_act_is_saved_when_the_disk_has_room_again(bench: Bench) -> None:
    bench.acts.on[Act.PLAN] = go_on = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.PLAN)
    bench.store.failures = 1
    go_on.set()
    assert (await bench.rest()).outcome is Outcome.SUCCEEDED


async def test_a_restart_on_a_full_disk_goes_on_when_there_is_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright_agent.update._AGAIN_S", 0.05)
    bench.acts.on[Act.DOWNLOAD] = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.DOWNLOAD)
    await bench.updates.stop()
    bench.acts.on.clear()
    bench.updates = bench.executor()
    bench.store.failures = 3
    await bench.updates.resume()
    assert (await bench.rest()).active == known("a").release.digest
    assert bench.store.failures == 0


async def test_stopping_leaves_a_state_that_the_next_start_resumes(bench: Bench) -> None:
    bench.acts.on[Act.DOWNLOAD] = asyncio.Event()
    await bench.updates.assign(1, known("a"))
    await bench.begun(Act.DOWNLOAD)
    await bench.updates.stop()
    assert bench.acts.stopped == [Act.DOWNLOAD]
    assert bench.store.load().step is Step.DOWNLOADING
    bench.acts.on.clear()
    bench.updates = bench.executor()
    await bench.updates.resume()
    assert (await bench.rest()).active == known("a").release.digest
