"""Damage to what an agent saves: its database, as it stands after a good end and after a power cut, and its spool."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgewright_agent import last_served
from edgewright_agent.database import StateDamaged
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import Goal, Lifecycle, Outcome, Step
from edgewright_agent.outbox.spool import Spool, SpoolFailed
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.trust import MetadataStale, TrustRefused
from edgewright_agent.trust_store import TrustStore
from edgewright_contract.v1 import telemetry_pb2
from tests.agent.trust_fleet import JETSON, NOW, Fleet, release
from tests.controller.signed_things import target
from tests.power.corruption import Downloads, Try, damaged
from tests.power.device import Device, Ground

RELEASE: Final = release("b")
_JOURNAL: Final = ("c" * 64, "d" * 64)
_BEFORE: Final = Lifecycle(generation=6, sequence=20, outcome=Outcome.SUCCEEDED, active=release("a").digest)
_STATE: Final = replace(
    _BEFORE,
    step=Step.DOWNLOADING,
    generation=7,
    sequence=21,
    release=RELEASE.digest,
    wanted=RELEASE.digest,
    previous=release("c").digest,
    outcome=Outcome.IN_PROGRESS,
    pending=Goal(8, RELEASE.digest, 60.0),
)


class SavedState:
    """What a device has saved, twice: in one file, and with a log that no power cut let it put into that file."""

    def __init__(self, folder: Path) -> None:
        fleet = Fleet(folder / "fleet")
        self._place = folder / "device" / "agent.sqlite"
        self._place.parent.mkdir()
        trust, store, journal = fleet.store(self._place), StateStore(self._place), DownloadJournal(self._place)
        trust.apply(fleet.answer(trust, fleet.sign("a", 6)), JETSON, NOW)
        for mark in "abc":
            store.save(_BEFORE, KnownRelease(release(mark), target(mark)))
        self._marks = [trust.marks()]
        self._held = {frozenset(trust.held())}
        trust.apply(fleet.answer(trust, fleet.sign("b", 7)), JETSON, NOW)
        self._marks.append(trust.marks())
        self._held.add(frozenset(trust.held()))
        store.save(_STATE)
        journal.record(*_JOURNAL, range(5))
        self._whole = self._read()  # with its log
        for one in (trust, store, journal):
            one.close()
        self._closed = self._read()

    def subjects(self) -> Mapping[str, Try]:
        return {
            "the database": lambda chance: self._spoilt(self._closed, "agent.sqlite", chance),
            "the database with its log": lambda chance: self._spoilt(self._whole, "agent.sqlite", chance),
            "the database's log": lambda chance: self._spoilt(self._whole, "agent.sqlite-wal", chance),
        }

    def _read(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._place.parent.iterdir() if not path.name.endswith("-shm")}

    def _spoilt(self, files: Mapping[str, bytes], name: str, chance: random.Random) -> None:
        shutil.rmtree(self._place.parent)
        self._place.parent.mkdir()
        for each, data in files.items():
            (self._place.parent / each).write_bytes(damaged(data, chance) if each == name else data)
        # As an agent opens them, each by itself: the first that is damaged would hide the others.
        for look in (self._lifecycle, self._trust, self._journal):
            with contextlib.suppress(StateDamaged):
                look()

    def _lifecycle(self) -> None:
        """A log that is damaged ends where it is: what came before is as it was, then."""
        with contextlib.closing(StateStore(self._place)) as store:
            state = store.load()
            assert state in (_STATE, _BEFORE, Lifecycle()), f"another state: {state}"
            for mark in "abc":
                with contextlib.suppress(StateDamaged):
                    known = store.known(release(mark).digest)
                    assert known in (None, KnownRelease(release(mark), target(mark))), f"another release: {known}"

    def _trust(self) -> None:
        with contextlib.closing(TrustStore.open(self._place)) as store:
            assert store.marks() in self._marks or not store.marks().generation, f"other marks: {store.marks()}"
            held = {one for one in store.held() if one.role != "root"}
            assert any(held <= each for each in self._held), f"holds what it never had: {held}"
            with contextlib.suppress(TrustRefused, MetadataStale):
                wanted = store.apply({}, JETSON, NOW).release
                assert wanted in (release("a"), release("b")), f"would install {wanted}"

    def _journal(self) -> None:
        with contextlib.closing(DownloadJournal(self._place)) as journal:
            journal.done(*_JOURNAL)  # what it says too much is found by the download, see corruption.py


class SavedReports:
    """The spool. What it has lost is lost, but it opens and takes more."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spool.sqlite"
        spool = Spool.open(self._path)
        for number in range(40):
            spool.add([_said(number)])
        spool.close()
        self._whole = self._path.read_bytes()

    def subjects(self) -> Mapping[str, Try]:
        return {"the spool": self._spoilt}

    def _spoilt(self, chance: random.Random) -> None:
        for left in self._path.parent.iterdir():
            left.unlink()
        self._path.write_bytes(damaged(self._whole, chance))
        with contextlib.suppress(SpoolFailed), contextlib.closing(Spool.open(self._path)) as spool:
            spool.add([_said(1)])
            for number in spool.after(0, 100):
                spool.get(number)
            spool.settle(10)
            spool.expire(1)


class SavedNote:
    """The note of what served last."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / last_served.FILE
        last_served.note(folder, RELEASE)
        self._whole = self._path.read_bytes()

    def subjects(self) -> Mapping[str, Try]:
        return {"the note of what served last": self._spoilt}

    def _spoilt(self, chance: random.Random) -> None:
        self._path.write_bytes(damaged(self._whole, chance))
        assert last_served.read(self._folder) in (None, RELEASE), "another release would be served"


def subjects(folder: Path) -> dict[str, Try]:
    """All of them, with what is downloaded, by what is damaged."""
    places = [folder / str(number) for number in range(4)]
    for place in places:
        place.mkdir()
    made = (Downloads(places[0]), SavedState(places[1]), SavedReports(places[2]), SavedNote(places[3]))
    return {name: tried for one in made for name, tried in one.subjects().items()}


def with_damage(ground: Ground, seed: int) -> tuple[Device, str]:
    """A device of which one file was damaged while it was off, and which."""
    chance, device = random.Random(seed), ground.device(f"damaged-{seed}")
    kept = ("artifacts", "agent.sqlite", "spool.sqlite", "serving.json", "endpoint", "unconfined.json")
    files = sorted(path for path in device.state.rglob("*") if path.is_file())
    path = chance.choice([path for path in files if path.relative_to(device.state).parts[0] in kept])
    path.chmod(0o644)
    path.write_bytes(damaged(path.read_bytes(), chance))
    return device, str(path.relative_to(device.state))


def _said(number: int) -> telemetry_pb2.Envelope:
    message = telemetry_pb2.Envelope(schema=1, device_id="d-1", boot_id=b"b" * 16, wall_ms=number, session=1)
    message.event.detail = f"event {number}"
    return message
