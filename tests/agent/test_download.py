from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import grpc
import pytest

from edgewright_agent.cancellation import Cancellation, Cancelled
from edgewright_agent.device_key import FileKey
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, prepare
from edgewright_agent.fetching import ranges
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import BadAnswer, Credentials, Link, LinkDown, Refused
from edgewright_agent.slots import Slots
from edgewright_contract import bundle
from edgewright_contract.model_files import ArtifactUnsafe
from tests.agent.block_server import BlockServer
from tests.agent.throwaway_ca import Leaf, ThrowawayCa

MIB = 1 << 20
GGUF_HEAD = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)

Serve = Callable[..., BlockServer]


class Device:
    """One device's folders and line; `download` is what the agent does for an assignment."""

    def __init__(self, state: Path, leaf: Leaf) -> None:
        self._credentials = Credentials(FileKey(leaf.key, leaf.key.read_bytes()), leaf.certificate, leaf.ca)
        state.mkdir(parents=True, exist_ok=True)
        self.slots, self.journal = Slots(state), DownloadJournal(state / "agent.sqlite")
        self.reported: list[tuple[int, int]] = []

    def link(self, server: BlockServer) -> Link:
        return Link(server.address, self._credentials)

    def download(
        self,
        server: BlockServer,
        reuse: tuple[str, ...] = (),
        reserve: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Path:
        cancellation, link = cancellation or Cancellation(), self.link(server)
        try:
            plan = prepare(server.target, link, self.slots, reuse=reuse, reserve=reserve, cancellation=cancellation)
            return pull(
                plan,
                link,
                self.slots,
                self.journal,
                progress=lambda *numbers: self.reported.append(numbers),
                cancellation=cancellation,
            )
        finally:
            link.close()


_GIVEN = """
import json, os, subprocess, sys
from pathlib import Path
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import FileKey
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import DiskFull, prepare
from edgewright_agent.link import Credentials, Link
from edgewright_contract.targets import ImageTarget
from tests.agent.test_download import Device
from tests.agent.throwaway_ca import Leaf
given = json.loads(sys.argv[1])
state, leaf, target = Path(given["state"]), Leaf(*map(Path, given["leaf"])), ImageTarget(**given["target"])
link = Link(given["address"], Credentials(FileKey(leaf.key, leaf.key.read_bytes()), leaf.certificate, leaf.ca))
"""


def given_to_child(server: BlockServer, ca: ThrowawayCa, state: Path) -> str:
    leaf = ca.device("jetson-01")
    files = [str(leaf.key), str(leaf.certificate), str(leaf.ca)]
    return json.dumps({"leaf": files, "state": str(state), "address": server.address, "target": asdict(server.target)})


@pytest.fixture
def ca(tmp_path: Path) -> ThrowawayCa:
    return ThrowawayCa(tmp_path / "ca")


@pytest.fixture
def device(tmp_path: Path, ca: ThrowawayCa) -> Device:
    return Device(tmp_path / "state", ca.device("jetson-01"))


@pytest.fixture
def serve(tmp_path: Path, ca: ThrowawayCa) -> Iterator[Serve]:
    servers: list[BlockServer] = []

    def start(name: str = "one", runtime: str = "gguf", size: int = 3 * MIB + 5, **files: bytes) -> BlockServer:
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        if runtime == "gguf":
            (folder / "model.gguf").write_bytes(GGUF_HEAD + os.urandom(size))
        (folder / "sub" / "config.json").write_bytes(b'{"vocab_size": 49152}')
        for path, content in files.items():
            (folder / path.replace("__", ".")).write_bytes(content)
        servers.append(BlockServer(folder, ca.server(), runtime))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def test_an_artifact_comes_whole_and_read_only(device: Device, serve: Serve) -> None:
    server = serve()
    path = device.download(server)
    assert path == device.slots.artifact(server.target.bundle)
    assert bundle.from_folder(path).digest == server.target.bundle
    device.slots.verify(server.target.bundle)
    assert (path / "model.gguf").stat().st_mode & 0o777 == 0o444
    total = device.slots.bundle(server.target.bundle).size
    assert server.sent == total
    assert device.reported[-1] == (total, total)
    assert not device.slots.partial(server.target.bundle).exists()


def test_what_is_here_already_is_not_fetched_again(device: Device, serve: Serve) -> None:
    server = serve()
    device.download(server)
    sent = server.sent
    assert device.download(server) == device.slots.artifact(server.target.bundle)
    assert server.sent == sent


def test_a_flipped_block_is_fetched_again_and_then_accepted(device: Device, serve: Serve) -> None:
    server = serve()
    server.mischief.flips.update({1: 2})
    device.download(server)
    device.slots.verify(server.target.bundle)


@pytest.mark.attack("altered blocks from the store")
def test_a_block_that_stays_wrong_refuses_the_artifact_by_file_block_and_source(device: Device, serve: Serve) -> None:
    honest = serve("honest")
    device.download(honest)
    server = serve("one")
    server.mischief.flips.update({1: 3})
    with pytest.raises(ArtifactCorrupt, match=r"model\.gguf: block 1 from controller 127\.0\.0\.1:\d+"):
        device.download(server)
    assert not device.slots.has(server.target.bundle)
    # When the source is repaired, only the bad block is fetched.
    sent = server.sent
    device.download(server)
    assert server.sent - sent == MIB


def test_a_line_cut_fifty_times_costs_little(device: Device, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright_agent.backoff.Backoff.pause", lambda self: 0.001)
    server = serve(size=60 * MIB)
    server.mischief.cut_every, server.mischief.cuts = 1300 << 10, 50
    device.download(server)
    assert server.mischief.cuts == 0
    assert server.sent <= 60 * MIB + 50 * 4 * MIB
    device.slots.verify(server.target.bundle)


def test_an_unavailable_controller_is_waited_for(device: Device, serve: Serve) -> None:
    server = serve()
    server.mischief.unavailable = 2
    device.download(server)
    assert server.calls >= 3


@pytest.mark.attack("slow retrieval: a source that drips")
def test_a_source_that_drips_is_left_and_the_rest_comes_later(
    device: Device, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright_agent.link.SLOW_AFTER_S", 0.2)
    server = serve()
    server.mischief.drips = 3
    began = time.monotonic()
    device.download(server)
    assert not server.mischief.drips
    assert server.calls > 3
    # A byte every 20 ms would have taken hours.
    assert time.monotonic() - began < 60
    device.slots.verify(server.target.bundle)


def cancel_when_stalled(device: Device, server: BlockServer, cancellation: Cancellation) -> None:
    """Cancel once the block that left the server stands on the device's disk; before, it may or may not count."""
    first = server.first_block()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not any(
        file.read_bytes().startswith(first) for file in device.slots.partial(server.target.bundle).rglob("model.gguf")
    ):
        time.sleep(0.01)
    cancellation.cancel()


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_cancelled_download_ends_at_once_and_goes_on_later(device: Device, serve: Serve, stop_first: bool) -> None:
    server = serve()
    server.mischief.stall = True
    cancellation = Cancellation()
    if stop_first:
        cancellation.cancel()
    else:
        threading.Thread(target=cancel_when_stalled, args=(device, server, cancellation)).start()
    with pytest.raises(Cancelled):
        device.download(server, cancellation=cancellation)
    server.mischief.stall = False
    sent = server.sent
    device.download(server)
    total = device.slots.bundle(server.target.bundle).size
    assert server.sent - sent == total - (0 if stop_first else MIB)


def test_files_that_another_artifact_has_are_linked_not_fetched(device: Device, serve: Serve) -> None:
    weights = GGUF_HEAD + os.urandom(2 * MIB)
    old, new = serve("old", weights__gguf=weights), serve("new", weights__gguf=weights)
    device.download(old)
    path = device.download(new, reuse=(old.target.bundle,))
    device.slots.verify(new.target.bundle)
    assert path.joinpath("weights.gguf").stat().st_ino == (
        device.slots.artifact(old.target.bundle).joinpath("weights.gguf").stat().st_ino
    )
    assert new.sent == (path / "model.gguf").stat().st_size


def test_a_damaged_file_is_not_taken_over_and_its_owner_is_left_alone(device: Device, serve: Serve) -> None:
    weights = GGUF_HEAD + os.urandom(2 * MIB)
    old, new = serve("old", weights__gguf=weights), serve("new", weights__gguf=weights)
    damaged = device.download(old) / "weights.gguf"
    damaged.chmod(0o644)
    damaged.write_bytes(weights[:-1] + b"?")
    device.download(new, reuse=(old.target.bundle,))
    device.slots.verify(new.target.bundle)
    assert damaged.read_bytes()[-1:] == b"?"


def test_too_small_a_disk_is_told_before_the_first_block(device: Device, serve: Serve) -> None:
    server = serve()
    everything = shutil.disk_usage(device.slots.artifact("x").parent).total
    with pytest.raises(DiskFull, match=r"needs [\d,]+ bytes .* so [\d,]+ are missing"):
        device.download(server, reserve=everything)
    assert server.sent == 0
    device.download(server)


_FILLER = (
    _GIVEN
    + """
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(state)], check=True)
device = Device(state, leaf)
plan = prepare(target, link, device.slots, reuse=(), reserve=0, cancellation=Cancellation())
hog = os.open(state / "hog", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(hog, bytes(64 << 10))
except OSError as error:
    print(error.strerror)
for _ in range(2):
    try:
        pull(plan, link, device.slots, device.journal, progress=lambda *n: None, cancellation=Cancellation())
    except DiskFull as error:
        print(error)
    os.truncate(state / "hog", 0)
device.slots.verify(target.bundle)
print("whole")
"""
)


def test_a_disk_that_fills_up_meanwhile_is_told_and_recovered_from(
    tmp_path: Path, ca: ThrowawayCa, serve: Serve
) -> None:
    server, state = serve(size=6 * MIB), tmp_path / "small"
    state.mkdir()
    # A mount namespace of its own: nothing stays mounted, and only there it takes no root.
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    filler = subprocess.run(
        [*apart, sys.executable, "-c", _FILLER, given_to_child(server, ca, state)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    full, told, whole = filler.stdout.splitlines()
    assert full == os.strerror(errno.ENOSPC)
    assert "while writing; free some space" in told
    assert whole == "whole"


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"run__py": b"print()"}, r"run\.py: files of this kind"),
        ({"pytorch_model__bin": b"\x80\x02"}, r"pytorch_model\.bin: files of this kind"),
        ({"weights__gguf": b"PK\x03\x04\x14\x00\x00\x00\x08\x00rest"}, r"weights\.gguf: a zip archive"),
        ({"weights__gguf": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0)}, r"weights\.gguf: .* too many"),
        ({"weights__gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 5)}, r"weights\.gguf: .* behind the end"),
        ({"tokenizer_config__json": b'{"a": [{"auto_map": {}}]}'}, r"tokenizer_config\.json: auto_map"),
        ({"config__json": b"{"}, r"config\.json: not JSON"),
    ],
)
def test_a_file_that_could_run_code_never_gets_its_name(
    device: Device, serve: Serve, files: dict[str, bytes], named: str
) -> None:
    device.download(serve("honest"))
    server = serve("one", **files)
    with pytest.raises(ArtifactUnsafe, match=named):
        device.download(server)
    assert not device.slots.has(server.target.bundle)


def test_safetensors_offsets_must_fit_their_tensors(device: Device, serve: Serve) -> None:
    def safetensors(last: int) -> bytes:
        header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,%d]}}' % last
        return struct.pack("<Q", len(header)) + header + bytes(4)

    device.download(serve("honest", "mlx", model__safetensors=safetensors(4)))
    with pytest.raises(ArtifactUnsafe, match="do not hold"):
        device.download(serve("one", "mlx", model__safetensors=safetensors(5)))


@pytest.mark.parametrize("kind", ["wrong_index", "too_long"])
def test_an_answer_that_was_not_asked_for_is_refused(
    device: Device, serve: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright_agent.backoff.Backoff.pause", lambda self: 0.001)
    server = serve()
    setattr(server.mischief, kind, True)
    with pytest.raises((BadAnswer, ArtifactCorrupt)):
        device.download(server)
    assert not device.slots.has(server.target.bundle)
    setattr(server.mischief, kind, False)
    device.download(server)


@pytest.mark.attack("another document under a signed digest")
def test_a_document_that_is_not_the_signed_one_is_refused(device: Device, serve: Serve) -> None:
    server = serve()
    honest = server.objects[server.target.bundle]
    for forged, error in ((honest[:-1] + b"]", "not what was signed"), (honest + b" ", "longer"), (b"", "not what")):
        server.objects[server.target.bundle] = forged
        with pytest.raises(BadAnswer, match=error):
            device.download(server)
    del server.objects[server.target.bundle]
    with pytest.raises(Refused, match="no such document"):
        device.download(server)
    server.objects[server.target.bundle] = honest
    device.download(server)


def test_a_check_in_tells_a_dead_line_from_a_refusal(device: Device, serve: Serve) -> None:
    from edgewright_contract.v1 import agent_pb2

    server = serve()
    link = device.link(server)
    assert link.check_in(agent_pb2.CheckInRequest()).next_check_in_s == 60
    server.mischief.refuse = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(Refused, match="check-in: permission denied: told to"):
        link.check_in(agent_pb2.CheckInRequest())
    server.stop()
    with pytest.raises(LinkDown, match=r"127\.0\.0\.1"):
        link.check_in(agent_pb2.CheckInRequest())
    link.close()


@pytest.mark.attack("a controller of another fleet")
def test_a_controller_of_another_fleet_is_not_believed(tmp_path: Path, serve: Serve) -> None:
    stranger = Device(tmp_path / "other", ThrowawayCa(tmp_path / "other-ca").device("jetson-01"))
    with pytest.raises(LinkDown):
        stranger.download(serve())


_PULLER = (
    _GIVEN
    + """
device = Device(state, leaf)
plan = prepare(target, link, device.slots, reuse=(), reserve=0, cancellation=Cancellation())
print("begun", flush=True)
pull(plan, link, device.slots, device.journal, progress=lambda *n: print(*n, flush=True), cancellation=Cancellation())
print("whole", flush=True)
"""
)


def test_sigkill_at_any_moment_leaves_a_download_that_goes_on(
    tmp_path: Path, ca: ThrowawayCa, serve: Serve, soak: int
) -> None:
    server, chance, state = serve(size=24 * MIB), random.Random(1), tmp_path / "killed"
    given = given_to_child(server, ca, state)
    for _ in range(6 * soak):
        puller = subprocess.Popen([sys.executable, "-c", _PULLER, given], stdout=subprocess.PIPE, text=True)
        assert puller.stdout is not None
        assert puller.stdout.readline() == "begun\n"
        time.sleep(chance.uniform(0, 0.15))
        os.kill(puller.pid, signal.SIGKILL)
        puller.wait(10)
        slots = Slots(state)
        if slots.has(server.target.bundle):
            slots.verify(server.target.bundle)
            shutil.rmtree(state)
    done = subprocess.run([sys.executable, "-c", _PULLER, given], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("whole\n")
    Slots(state).verify(server.target.bundle)


def test_ranges_join_neighbours() -> None:
    assert list(ranges([])) == []
    assert list(ranges([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 1), (7, 2)]


class Impatient(Cancellation):
    """Notes what it was to wait for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        super().wait(0)


def test_a_device_comes_back_when_a_busy_controller_told_it_to(serve: Serve, device: Device) -> None:
    server, told = serve(), Impatient()
    server.mischief.hints = ["7000", "12500", "999999999"]
    assert device.download(server, cancellation=told).is_dir()
    assert told.waits == [7.0, 12.5, 600.0], "as told, within its own bounds"
    assert server.calls == 4


def test_a_hint_that_is_none_leaves_a_device_to_its_own_pauses(serve: Serve, device: Device) -> None:
    server, told = serve(), Impatient()
    server.mischief.hints = ["-1", "soon", ""]
    assert device.download(server, cancellation=told).is_dir()
    assert len(told.waits) == 3
    assert all(0.25 <= pause <= 2.0 for pause in told.waits), told.waits
