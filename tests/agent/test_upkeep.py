"""Artifacts at rest: what is damaged is found by file and block, and only that is made anew, beside what is served."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgewright_agent import state_store, upkeep
from edgewright_agent.cancellation import Cancellation, Cancelled
from edgewright_agent.inspection import Finding, Paced, inspect
from edgewright_agent.lifecycle_state import Lifecycle
from edgewright_agent.mending import Mended, Mender
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.upkeep import Upkeep
from edgewright_agent.upkeep_folder import Report, UpkeepFolder
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from tests.agent.real_mosquitto import until
from tests.agent.test_download import MIB, Device
from tests.agent.update_room import FIRST, ONE, OTHER, TWO, Room, flip, harm


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.server.stop()


class Care:
    """A device with the old artifact and one that has the same weights, and what mends them."""

    def __init__(self, room: Room) -> None:
        self.room, self.device = room, room.device()
        folder = room.artifact("twin", FIRST + ONE + TWO)
        (folder / "tokenizer.json").write_bytes(b"{}")
        self.targets = {room.old.bundle: room.old}
        room.server.target = room.server.add(folder)
        room.update(self.device)
        self.twin = room.server.target
        self.targets[self.twin.bundle] = self.twin
        self.slots = self.device.slots
        self.weights, self.twins = self.file(room.old, "model.gguf"), self.file(self.twin, "model.gguf")
        assert self.weights.samefile(self.twins)
        room.server.sent = 0

    def file(self, target: ImageTarget, path: str) -> Path:
        return self.device.slots.artifact(target.bundle) / path

    def found(self) -> list[Finding]:
        return [finding for name in self.slots.names() for finding in inspect(self.slots, name)]

    def mender(self, patience_s: float = 60.0) -> Mender:
        link = self.device.link(self.room.server)
        return Mender(self.slots, self.device.journal, link, 0, patience_s)

    def mend(self, patience_s: float = 60.0) -> Mended:
        return self.mender(patience_s).mend(self.found(), self.targets, Cancellation())


@pytest.fixture
def care(room: Room) -> Care:
    return Care(room)


def test_nothing_is_found_where_nothing_is_wrong(care: Care) -> None:
    assert care.found() == []


def lose(file: Path) -> None:
    file.unlink()


def lead_elsewhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("damage", "what", "blocks"),
    [
        (lambda file: harm(file, flip(MIB + 7)), "changed since it was verified", (2,)),
        (lambda file: harm(file, lambda data: data.__delitem__(slice(MIB + 7, None))), "changed", (2, 3)),
        (lambda file: harm(file, lambda data: data.append(0)), "changed", ()),
        (lose, "missing", ()),
        (lead_elsewhere, "neither a file nor a folder", ()),
        (lambda file: (file.parent / "hook.py").write_bytes(b""), "does not belong to the artifact", ()),
        (lambda file: (file.parent / "sub").symlink_to("/etc"), "does not belong to the artifact", ()),
        (lambda file: os.link(file, file.parents[2] / "outside"), "has another name outside", ()),
    ],
)
def test_what_is_damaged_is_found_by_file_and_block_and_made_anew(
    care: Care, damage: Callable[[Path], object], what: str, blocks: tuple[int, ...]
) -> None:
    damage(care.weights)
    found = next(finding for finding in care.found() if finding.artifact == care.room.old.bundle)
    assert (what in found.what, found.blocks) == (True, blocks)
    assert care.mend().left == ()
    assert care.found() == []
    for target in care.targets.values():
        care.slots.verify(target.bundle)


def test_the_words_name_artifact_file_and_blocks() -> None:
    said = str(Finding("a" * 64, "model.gguf", "changed since it was verified", tuple(range(1, 11))))
    assert (
        said
        == f"artifact {'a' * 12}: model.gguf: block 1, 2, 3, 4, 5, 6, 7, 8 and 2 more: changed since it was verified"
    )


def test_only_the_bad_block_is_fetched_once_for_all_that_share_it(care: Care) -> None:
    harm(care.weights, flip(MIB + 7))
    mended = care.mend()
    assert [line.endswith("model.gguf: mended") for line in mended.done] == [True, True]
    assert care.room.server.sent == MIB
    assert care.weights.samefile(care.twins), "they share it again"
    assert care.file(care.room.old, "config.json").samefile(care.file(care.twin, "config.json"))
    assert not any(care.slots.partial("x").parent.iterdir())


def test_a_file_that_an_engine_has_mapped_is_not_written_to(care: Care) -> None:
    harm(care.weights, flip(MIB + 7))
    with open(care.weights, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = bytes(mapped)
        care.mend()
        assert bytes(mapped) == before
        assert care.weights.read_bytes() == FIRST + ONE + TWO


def test_what_another_artifact_has_sound_needs_no_network(care: Care) -> None:
    own = care.twins.read_bytes()
    care.twins.unlink()
    care.twins.write_bytes(own)  # no longer shared
    harm(care.weights, flip(MIB + 7))
    care.room.server.stop()
    assert care.mend().left == ()
    assert care.weights.samefile(care.twins)


def test_a_list_of_files_that_is_damaged_is_fetched_and_the_files_are_not(care: Care) -> None:
    document = care.slots.document(care.room.old.bundle)
    document.write_bytes(document.read_bytes()[:-1])
    assert [finding.path for finding in care.found()] == [""]
    assert care.mend().left == ()
    assert (care.found(), care.room.server.sent) == ([], 0)


def test_an_artifact_that_nothing_needs_is_not_fetched_for(care: Care) -> None:
    harm(care.weights, flip(7))
    del care.targets[care.twin.bundle]
    mended = care.mend()
    assert [line.split(": ", 1)[1] for line in mended.done] == [
        line
        for name in sorted([care.room.old.bundle, care.twin.bundle])
        for line in ["nothing needs it any more; it was removed" if name == care.twin.bundle else "model.gguf: mended"]
    ]
    assert (care.slots.names(), care.found()) == ([care.room.old.bundle], [])


def test_what_cannot_be_had_now_stands_with_the_reason_and_the_damaged_file_with_it(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright_agent.backoff.Backoff.pause", lambda self: 0.001)
    harm(care.weights, flip(7))
    before = care.found()
    care.room.server.stop()
    mended = care.mend(patience_s=0.0)
    assert mended.left == tuple(before)
    assert "is not mended yet: controller 127.0.0.1" in mended.why[0]
    assert care.found() == before, "what is damaged a little is better than nothing"


@pytest.mark.attack("a source that sends rubbish for a repair")
def test_what_comes_for_a_repair_is_checked_as_anything_is(care: Care) -> None:
    harm(care.weights, flip(MIB + 7))
    care.room.server.mischief.flips[2] = 100
    mended = care.mend()
    assert "is not what was signed" in mended.why[0]
    assert care.weights.read_bytes() != FIRST + ONE + TWO
    care.room.server.mischief.flips.clear()
    assert care.mend().left == ()


def known(target: ImageTarget) -> KnownRelease:
    return KnownRelease(Release("smollm2", "jetson", "gguf", target.bundle, "cpu", 1), target)


class Round:
    """The agent's care over real stores. `busy` stands for an update that is under way."""

    def __init__(self, care: Care, *, every_s: float = 3600.0) -> None:
        self.care, self.busy, self.news = care, False, 0
        self.folder = UpkeepFolder(care.room.state)
        store = StateStore(care.room.state / "agent.sqlite")
        for target in care.targets.values():
            release = known(target)
            store.save(Lifecycle(active=release.release.digest), release)
        self.upkeep = Upkeep(
            self.folder,
            care.slots,
            store,
            care.mender(),
            every_s=every_s,
            idle=lambda: not self.busy,
            on_news=self._note,
        )

    def _note(self) -> None:
        self.news += 1


async def test_a_round_comes_when_it_is_due_finds_tells_and_mends(care: Care) -> None:
    harm(care.weights, flip(MIB + 7))
    round_ = Round(care)
    await round_.upkeep.once()
    assert (round_.upkeep.findings, round_.folder.report().ended > 0) == ((), True), "at first, the time begins to run"
    round_.folder.keep(Report(ended=time.time() - 3601.0))
    round_ = Round(care)
    await round_.upkeep.once()
    assert (round_.news, round_.upkeep.findings) == (2, ()), "found, and mended"
    assert care.found() == []
    assert len(round_.folder.report().done) == 2


async def test_what_is_asked_for_is_done_after_the_update_that_is_under_way(care: Care) -> None:
    round_ = Round(care)
    round_.busy = True
    round_.folder.ask("mark")
    await round_.upkeep.once()
    assert (round_.folder.report().asked, round_.folder.wanted()) == ("", "mark")
    round_.busy = False
    await round_.upkeep.once()
    assert (round_.folder.report().asked, round_.folder.wanted()) == ("mark", "")
    assert round_.folder.report().artifacts == 2


async def test_an_update_makes_it_stop_at_once_and_it_begins_anew(care: Care, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright_agent.backoff.Backoff.pause", lambda self: 0.001)
    harm(care.weights, flip(MIB + 7))
    care.room.server.mischief.stall = True
    round_ = Round(care)
    round_.folder.ask("mark")
    working = asyncio.ensure_future(round_.upkeep.once())
    # The bad block has left the controller, which says no more.
    await asyncio.to_thread(until, lambda: care.room.server.sent > 0, "the bad block")
    round_.busy = True
    await round_.upkeep.give_way()
    await working
    assert (bool(round_.upkeep.findings), round_.folder.wanted()) == (True, "mark")
    care.room.server.mischief.stall = round_.busy = False
    await round_.upkeep.once()
    assert (round_.upkeep.findings, care.found()) == ((), [])


def test_what_was_found_outlives_a_restart_and_rubbish_is_no_report(care: Care) -> None:
    folder = UpkeepFolder(care.room.state)
    report = Report(7.5, 2, (Finding("a" * 64, "model.gguf", "changed", (1, 2)),), ("one",), ("two",), "mark")
    folder.keep(report)
    assert folder.report() == report
    for rubbish in (b"", b"{", b"[]", b'{"findings": [{}]}', b'{"findings": 3}', b"\xff"):
        (care.room.state / "upkeep" / "report").write_bytes(rubbish)
        assert folder.report() == Report()


@pytest.mark.parametrize(
    ("ended", "now", "is_due"), [(100.0, 159.0, False), (100.0, 160.0, True), (100.0, 99.0, True), (0.0, 1e9, True)]
)
def test_when_a_round_is_due(ended: float, now: float, is_due: bool) -> None:
    assert upkeep.due(ended, 60.0, now) is is_due
    assert not upkeep.due(ended, float("inf"), max(now, ended))


def test_reading_at_a_pace_ends_when_it_is_asked_to() -> None:
    cancellation = Cancellation()
    paced = Paced(cancellation, share=0.5)
    paced()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        paced()


def test_a_damaged_artifact_that_is_set_aside_gives_its_sound_blocks(care: Care) -> None:
    device: Device = care.device
    care.slots.remove(care.twin.bundle)
    harm(care.weights, flip(MIB + 7))
    care.slots.set_aside(care.room.old.bundle)
    assert not care.slots.has(care.room.old.bundle)
    care.room.server.target = care.room.old
    care.room.update(device)
    assert care.room.server.sent == MIB
    assert care.slots.folder(care.room.old.bundle) == care.slots.artifact(care.room.old.bundle)
    assert [path.name for path in care.slots.artifact("x").parent.iterdir() if ".damaged" in path.name] == []


def test_state_store_is_asked_for_targets(care: Care) -> None:
    store = state_store.StateStore(care.room.state / "agent.sqlite")
    assert store.targets() == {}
    release = known(care.twin)
    store.save(Lifecycle(active=release.release.digest), release)
    assert store.targets() == {care.twin.bundle: care.twin}


def test_a_file_that_grew_in_other_weights_is_made_anew(care: Care) -> None:
    harm(care.weights, lambda data: data.extend(OTHER))
    assert care.mend().left == ()
    assert care.weights.stat().st_size == 3 * MIB
