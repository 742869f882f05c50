"""One device as often as it is needed: its disk is copied, and each copy is an agent that is about to be updated.

It serves its second version, has the first one besides, and the controller wants the third, which has a file and a
block of another in common with the second. So an update does all that one can: it is told, links, copies and fetches,
is cut off once, switches, and removes the first version.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from edgewright_agent.database import StateDamaged
from edgewright_agent.identity import Identity, IdentityError
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_agent.state_store import StateStore
from edgewright_agent.trust_store import TrustStore
from edgewright_contract import block_index, bundle
from edgewright_contract.v1 import agent_pb2
from tests.agent.small_controller import SmallController
from tests.agent.test_run import COMMAND, AgentProcess

PATIENCE_S: Final = 120.0
_HEAD: Final = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
_SAME: Final[dict[str, bytes]] = {"tokenizer.json": b'{"version": "1.0", "added_tokens": [], "model": {"type": "BPE"}}'}
_BYTES: Final = (1 << 20) + 4321  # two blocks


def _more(end: bytes) -> dict[str, bytes]:
    """A file that is the same in all versions, and one whose first block is."""
    return {**_SAME, "more.gguf": _HEAD + bytes((1 << 20) - len(_HEAD)) + end}


class Ground:
    """A controller, and the disk of its device before the update. Every device made here is the same one to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.controller = SmallController(self.folder / "controller")
        first = AgentProcess(self.folder / "first")
        enrolled = first.command("enroll", "--token", self.controller.token())
        assert enrolled.returncode == 0, enrolled.stderr
        bundles: list[str] = []
        first.start()
        try:
            for generation, version in enumerate(("v0", "v1"), start=1):
                files = _more(b"old") if version == "v1" else _SAME
                made = self.controller.release(version, prefix=f"{version} ", size=1 << 16, files=files)
                self.controller.want(generation, made)
                status = self.controller.ended(generation)
                assert status.outcome == agent_pb2.OUTCOME_SUCCEEDED, status
                bundles.append(made[1].bundle)
        finally:
            first.end()
        self.before = first.state
        self.first, self.old = bundles
        wanted = self.controller.release("v2", prefix="v2 ", size=_BYTES, files=_more(b"newer"))
        self.new, self.target = wanted[1].bundle, wanted[1]
        self.controller.want(3, wanted)
        # Each download is cut in the middle once: what came before counts, and is written down in the journal.
        self.controller.mischief.cut_every, self.controller.mischief.cuts = (1 << 20) + 4096, 1 << 60

    def close(self) -> None:
        self.controller.stop()

    def device(self, name: str) -> Device:
        """The device, with its disk as it was before the update."""
        made = Device(self, self.folder / name)
        shutil.rmtree(made.folder, ignore_errors=True)
        made.process.write_config("127.0.0.1:0")
        copy(self.before, made.state)
        return made


class Device:
    """A copy of the device, with a folder and a process of its own."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self._ground, self.folder = ground, folder
        self.process = AgentProcess(folder)
        self.state, self.log = folder / "state", folder / "agent.log"
        self._running: subprocess.Popen[str] | None = None
        self._since = 0

    @property
    def pid(self) -> int:
        """Of its agent; 0 before the first start."""
        return 0 if self._running is None else self._running.pid

    def start(self, environment: Mapping[str, str] | None = None, command: Sequence[str] | None = None) -> None:
        """Begin; `ready` waits for it. `command`: another way to start an agent."""
        self._since = self._ground.controller.heard
        with open(self.log, "ab") as log:
            self._running = subprocess.Popen(
                [*(command or COMMAND), "run", "--config", str(self.process.config)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def ready(self) -> None:
        """It is up."""
        assert self._running is not None
        assert self._running.stdout is not None
        readable, _, _ = select.select([self._running.stdout], [], [], PATIENCE_S)
        line = self._running.stdout.readline() if readable else ""
        assert line, f"the agent does not come up: {self.log.read_text()[-2000:]}"
        self.process.base = line.split(": ", 1)[1].split(" ", 1)[0].removesuffix("/v1")

    def served(self) -> str:
        """The version that answers: "v1" or "v2"."""
        return self.process.ask().split(" ", 1)[0]

    def updated(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until it has told the controller that it has the third version."""
        self._ground.controller.until(_succeeded_at(self.process.base), self._since, patience_s)

    def heard(self) -> list[agent_pb2.DeviceStatus]:
        """What it has told the controller since its start."""
        told = [request.status for request in self._ground.controller.check_ins[self._since :]]
        return [status for status in told if _address(status.endpoint) == _address(self.process.base)]

    def has_updated(self) -> bool:
        """Whether it has told that already."""
        return any(map(_succeeded_at(self.process.base), self.heard()))

    def updated_or_ended(self) -> bool:
        """The same, or its process is gone before that; whether it was updated."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self._running is not None
            if self._running.poll() is not None:
                return False
            address = self.state / "endpoint"
            if address.exists() and self._has_told(address.read_text()):
                return True
            time.sleep(0.02)
        raise AssertionError(f"neither updated nor ended: {self.log.read_text()[-2000:]}")

    def ended(self) -> int:
        """Its exit code, once it ended by itself."""
        assert self._running is not None
        return self._running.wait(PATIENCE_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for that."""
        if self._running is not None and self._running.poll() is None:
            self._running.send_signal(number)
            self._running.wait(PATIENCE_S)

    def remove(self) -> None:
        """Its folder is needed no more."""
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """It does not outlive this."""
        try:
            yield
        finally:
            self.end(signal.SIGKILL)

    def survives(self) -> float:
        """Start it as it stands: what it serves is whole, and the update comes to its end. Seconds until it answered.

        Without the time for which it could have run and others had the processors. Raises AssertionError with what was
        lost.
        """
        began = time.monotonic()
        self.start()
        with self.ending():
            self.ready()
            version = self.served()
            took = time.monotonic() - began - self._waited_for_a_processor()
            assert version in ("v1", "v2"), version
            self._is_whole(self._ground.new if version == "v2" else self._ground.old)
            self.updated()
            assert self.served() == "v2"
            self.end()  # not in the middle of a check-in, whose folder would be left
        self.is_tidy()
        return took

    def serves_on(self) -> str:
        """Start it as it stands; the version that it serves, which is whole. Raises AssertionError."""
        self.start()
        with self.ending():
            self.ready()
            version = self.served()
            artifacts = {"v0": self._ground.first, "v1": self._ground.old, "v2": self._ground.new}
            self._is_whole(artifacts[version])
        log = self.log.read_text()
        assert "Traceback" not in log, log[-3000:]
        self.remove()
        return version

    def _waited_for_a_processor(self) -> float:
        """Seconds, of the first threads of agent and engine, in which a start is done, one after the other."""
        seconds = 0.0
        for pid in (self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))):
            ran_and_waited = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text()
            seconds += int(ran_and_waited.split()[1]) / 1e9
        return seconds

    def _has_told(self, endpoint: str) -> bool:
        succeeded = _succeeded_at(endpoint)
        return any(succeeded(request.status) for request in self._ground.controller.check_ins[self._since :])

    def _is_whole(self, artifact: str) -> None:
        found = bundle.from_folder(self.state / "artifacts" / artifact).digest
        assert found == artifact, f"artifact {artifact[:12]} is not what was signed"

    def is_tidy(self) -> None:
        """Nothing is left of what was interrupted: both versions whole and read-only, no unfinished files."""
        ground = self._ground
        for artifact in (ground.old, ground.new):
            self._is_whole(artifact)
            for file in (self.state / "artifacts" / artifact).iterdir():
                assert not file.stat().st_mode & 0o222, f"{file}: may be written to"
        names = {path.name.partition(".")[0] for path in (self.state / "artifacts").iterdir()}
        assert names == {ground.old, ground.new}, f"left in artifacts: {names}"
        left = [*(self.state / "partial").iterdir(), *self.state.glob("trust-round-*")]
        assert left == [], f"left: {left}"
        log = self.log.read_text()
        assert "Traceback" not in log, log[-3000:]


def _address(endpoint: str) -> str:
    return endpoint.removesuffix("/v1")


def _succeeded_at(endpoint: str) -> Callable[[agent_pb2.DeviceStatus], bool]:
    """Whether a status is of the device that answers there, and says that it has the third version."""
    return lambda status: (
        _address(status.endpoint) == _address(endpoint)
        and (status.generation, status.outcome) == (3, agent_pb2.OUTCOME_SUCCEEDED)
    )


def copy(state: Path, into: Path) -> None:
    """A copy with its links, modes and times."""
    into.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", str(state), str(into)], check=True)


def look(state: Path, ground: Ground) -> list[str]:
    """What an agent that starts on this disk would miss, without starting one: no version to serve, or a lie.

    What the journal says of the unfinished download is compared with the bytes that are there.
    """
    lost = []
    try:
        Identity.load(state)
        TrustStore.open(state / "agent.sqlite").close()
        store, journal = StateStore(state / "agent.sqlite"), DownloadJournal(state / "agent.sqlite")
        slots = Slots(state)
        try:
            saved = store.load()
            active = store.known(saved.active)
            if active is None or active.release.artifact not in (ground.old, ground.new):
                lost.append(f"serves {saved.active[:12]}, which is neither version")
            else:
                slots.verify(active.release.artifact)
            for one in (saved.release, saved.previous):
                if one and store.known(one) is None:
                    lost.append(f"release {one[:12]} is not known")
            lost += _lies(journal, slots, ground)
        finally:
            store.close()
            journal.close()
    except (StateDamaged, ArtifactDamaged, IdentityError, OSError) as error:
        lost.append(str(error))
    return lost


def _lies(journal: DownloadJournal, slots: Slots, ground: Ground) -> list[str]:
    """Blocks that the next download would not fetch, though they are not there."""
    listed = bundle.parse(ground.controller.objects[ground.target.bundle])
    blocks = block_index.parse(ground.controller.objects[ground.target.block_index], listed).blocks
    sizes = {file.path: file.size for file in listed.files}
    lies = []
    for number in sorted(journal.done(ground.target.bundle, ground.target.block_index)):
        block = blocks[number]
        path = slots.partial(ground.new) / "files" / block.path
        if not path.exists() or path.stat().st_size != sizes[block.path]:
            continue  # it is fetched from nothing
        with path.open("rb") as file:
            file.seek(block.offset)
            if hashlib.sha256(file.read(block.size)).digest() != block.sha256:
                lies.append(f"the journal has block {number} of {block.path}, and the disk has not")
    return lies
