"""A controller's process with one artifact of any size in its store, and certificates for as many devices as asked."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import psutil
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewright_contract import block_index
from edgewright_contract.targets import ImageTarget
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.demo.children import Children, accepts, free_ports
from edgewright_controller.pki import Authority, KeyPair
from tests.controller.pki_requests import new_key, request
from tests.model_files import gguf_of, tensor

FLEET: Final = "plant-7"
MIB: Final = 1 << 20
TENSOR_BYTES: Final = 8 << 20
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DeviceFiles:
    """PEM files of one device's key and chain, and of the fleet's root."""

    key: Path
    chain: Path
    ca: Path


class Room:
    """Below `folder`: the controller's state, the devices' certificates, the devices' own folders."""

    def __init__(self, folder: Path) -> None:
        """Makes the authority; the controller starts with `serve`."""
        self.folder, self.state = folder, folder / "controller"
        self.state.mkdir(parents=True)
        self._authority = Authority.open(self.state / "pki", FLEET, _now())
        self._children = Children(folder / "logs")
        self.address = ""

    def add(self, size: int) -> ImageTarget:
        """An artifact of one file of random tensors, `size` without its header, in the controller's store."""
        made = self.folder / f"artifact-{size}"
        made.mkdir()
        write_model(made / "model.gguf", size)
        stored = ArtifactStore(self.state / "store").add(made)
        return ImageTarget(
            kind="model",
            name=f"random-{size}",
            hw_class="gguf-cpu",
            runtime="gguf",
            bundle=stored.bundle,
            bundle_length=stored.bundle_length,
            block_index=stored.block_index,
            block_index_length=stored.block_index_length,
        )

    def weights(self, target: ImageTarget) -> Path:
        """The artifact's one file, as it stands in the store."""
        return ArtifactStore(self.state / "store").path(target.bundle) / "model.gguf"

    def block_count(self, target: ImageTarget) -> int:
        """How many blocks the artifact has."""
        store = ArtifactStore(self.state / "store")
        with store.open_object(target.block_index) as file:
            return len(block_index.parse(file.read(), store.bundle(target.bundle)).blocks)

    def server_pair(self) -> KeyPair:
        """A server's key and certificate for the loopback: the controller's own."""
        return self._authority.server_certificate(("localhost", "127.0.0.1"), _now())

    def device(self, name: str) -> DeviceFiles:
        """A certificate of the fleet's authority for this device; the ledger need not know it for downloads."""
        key = new_key()
        folder = self.folder / "devices" / name
        folder.mkdir(parents=True)
        files = DeviceFiles(folder / "device.key", folder / "device.crt", self._authority.ca_path)
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        files.chain.write_bytes(self._authority.issue_device(name, request(key), _now()))
        return files

    def serve(self, settings: str = "") -> None:
        """Start `edgewright serve`, with these settings besides, and wait until it is ready."""
        grpc_port, enrolment_port = free_ports(2)
        file = self.folder / "controller.toml"
        file.write_text(settings)
        given = ["--settings", str(file), "--state", str(self.state), "--fleet", FLEET, "--broker", "off"]
        given += ["--listen", f"127.0.0.1:{grpc_port}", "--enrolment", f"127.0.0.1:{enrolment_port}"]
        started = self._children.start("controller", "edgewright_controller.cli", "serve", *given)
        self.address = f"127.0.0.1:{grpc_port}"
        self._children.wait_for(started, lambda: accepts(grpc_port), "listens")

    @property
    def process(self) -> psutil.Process:
        """The controller's."""
        return psutil.Process(self._children.named("controller").pid)

    def cpu_s(self) -> float:
        """Seconds of processor time that the controller has used."""
        used = self.process.cpu_times()
        return used.user + used.system

    def rss_mb(self) -> float:
        """Its resident memory in MB (10^6 bytes)."""
        return self.process.memory_info().rss / 1e6

    def close(self) -> None:
        """Stop the controller."""
        self._children.stop()


def write_model(file: Path, size: int) -> None:
    """A GGUF file with tensors of 8 MiB of random bytes, `size` in all; a multiple of 8 MiB."""
    count, chance = size // TENSOR_BYTES, random.Random(size)
    tensors = [tensor(f"blk.{n}.weight", (TENSOR_BYTES // 4,), 0, n * TENSOR_BYTES) for n in range(count)]
    with file.open("wb") as stream:
        stream.write(gguf_of([], tensors, b""))
        for _ in range(size // MIB):
            stream.write(chance.randbytes(MIB))


def child(module: str, given: Mapping[str, Any], timeout: float = 600) -> dict[str, Any]:
    """What `python -m module` answers when it is given this, both JSON. Raises subprocess.CalledProcessError."""
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(given)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def pull_given(address: str, target: ImageTarget, files: DeviceFiles, state: Path) -> dict[str, Any]:
    """What `pull_child` is to be given."""
    device = {name: str(path) for name, path in asdict(files).items()}
    return {"address": address, "target": asdict(target), "device": device, "state": str(state)}


def _now() -> datetime:
    return datetime.now(timezone.utc)
