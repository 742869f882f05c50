"""A device that holds an artifact, and a controller that has another one: what an update is made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from edgewright_contract.targets import ImageTarget
from tests.agent.block_server import BlockServer
from tests.agent.test_download import GGUF_HEAD, MIB, Device
from tests.agent.throwaway_ca import ThrowawayCa

FIRST = GGUF_HEAD + bytes(MIB - len(GGUF_HEAD))
CHANCE = random.Random(6)
ONE, TWO, OTHER = (CHANCE.randbytes(MIB) for _ in range(3))


class Room:
    """A device with an old artifact, whose weights are FIRST, ONE, TWO, and a controller that has a new one."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.ca = ThrowawayCa(place / "ca")
        self.state = place / "state"
        self.server = BlockServer(self.artifact("old", FIRST + ONE + TWO), self.ca.server())
        self.old = self.server.target

    def artifact(self, name: str, weights: bytes) -> Path:
        folder = self._place / name
        folder.mkdir()
        (folder / "model.gguf").write_bytes(weights)
        (folder / "config.json").write_bytes(b'{"vocab_size": 49152}')
        return folder

    def device(self) -> Device:
        """With the old artifact on its disk; from now on the server counts anew."""
        device = Device(self.state, self.ca.device("jetson-01"))
        device.download(self.server)
        self.server.sent = 0
        self.server.requests_for_blocks.clear()
        return device

    def offer(self, weights: bytes) -> ImageTarget:
        self.server.target = self.server.add(self.artifact("new", weights))
        return self.server.target

    def update(self, device: Device) -> Path:
        device.reported.clear()
        path = device.download(self.server, reuse=(self.old.bundle,))
        device.slots.verify(self.server.target.bundle)
        return path


def harm(file: Path, change: Callable[[bytearray], object]) -> None:
    """Change what stands in a file, whoever it belongs to."""
    data = bytearray(file.read_bytes())
    change(data)
    file.chmod(0o644)
    file.write_bytes(data)


def flip(position: int) -> Callable[[bytearray], object]:
    """A changed bit at this byte."""
    return lambda data: data.__setitem__(position, data[position] ^ 1)
