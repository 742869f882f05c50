"""Two versions of a small model in a store, as updates make them: a header that grew, tensors that changed a little."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from edgewright_contract import block_coding, block_index
from edgewright_contract.block_index import Block
from edgewright_controller.compile.store import ArtifactStore, Stored
from edgewright_controller.delivery.packs import PackKey, Packs
from tests.model_files import gguf_of, pair, tensor, text

_CHANCE = random.Random(11)
NUMBERS = _CHANCE.randbytes(1_500_000)
WORDS = " ".join(str(_CHANCE.randrange(10_000)) for _ in range(40_000)).encode()


def gguf(
    template: str = "short", numbers: bytes = NUMBERS, names: tuple[str, ...] = ("wide", "norm", "scale")
) -> bytes:
    """Tensors of 1,200,000, 64 and 128 bytes behind a header of 200 KB with a text in its middle."""
    sizes = (300_000, 16, 32)
    described, at = [], 0
    for name, count in zip(names, sizes, strict=True):
        described.append(tensor(name, (count,), 0, at))
        at += -(-4 * count // 32) * 32
    half = len(WORDS) // 2
    pairs = [
        pair("words", 8, text(WORDS[:half])),
        pair("tokenizer.chat_template", 8, text(template)),
        pair("more", 8, text(WORDS[half:])),
    ]
    return gguf_of(pairs, described, numbers[:at])


@lru_cache
def nudged(numbers: bytes, seed: int = 1) -> bytes:
    """As requantised weights are: a fifth of all bytes is one more or one less."""
    steps = bytes(random.Random(seed).choices([0] * 8 + [1, 255], k=50_000))
    return block_coding.added(numbers, (steps * (len(numbers) // len(steps) + 1))[: len(numbers)])


class Room:
    """A store and its packs in a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = ArtifactStore(place / "store")
        self.packs = Packs(place / "store" / "deltas")
        self._made = 0

    def add(self, files: Mapping[str, bytes]) -> Stored:
        self._made += 1
        folder = self.place / f"made-{self._made}"
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return self.store.add(folder)

    def blocks(self, stored: Stored) -> tuple[Block, ...]:
        with self.store.open_object(stored.block_index) as file:
            return block_index.parse(file.read(), self.store.bundle(stored.bundle)).blocks

    def content(self, stored: Stored, path: str) -> bytes:
        return (self.store.path(stored.bundle) / path).read_bytes()

    @property
    def files(self) -> list[str]:
        return sorted(entry.name for entry in (self.place / "store" / "deltas").iterdir())


def key(wanted: Stored, base: Stored | None = None) -> PackKey:
    """The pack of one artifact against another, or against nothing."""
    return PackKey(wanted.bundle, wanted.block_index, base.bundle if base else "")
