"""Seeded mutations of honest headers: each is an honest file still or refused in words; never slow, never large."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from edgewright_contract.model_files import (
    FileUnsafe,
    disguise,
    gguf_header,
    onnx_graph,
    safetensors_header,
    settings,
    texts,
)
from tests import model_files
from tests.model_files import field, onnx_node, onnx_of, onnx_weights
from tests.model_files import onnx_graph as graph

MUTATIONS: Final = 3000
SLOWEST_S: Final = 1.0
MOST_BYTES: Final = 8 << 20
# Numbers at which counters turn over.
_EDGES: Final = (
    0,
    1,
    7,
    8,
    9,
    127,
    128,
    255,
    1 << 15,
    1 << 16,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
)

_SUBGRAPH = field(1, "then") + field(6, graph(onnx_node("Mul"), weights=[onnx_weights("b.data")]))
ONNX = onnx_of(graph(onnx_node("If", "", _SUBGRAPH), onnx_node("EPContext", "com.microsoft"), weights=[onnx_weights()]))
SETTINGS = b'{"model": {"decoder": {"filename": "model.onnx", "session_options": {"id": "a", "n": [1, 2.5, null]}}}}'
SENTENCEPIECE = b"".join(field(1, field(1, f"piece{n}")) for n in range(20)) + field(2, b"\x08\x01")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes of the kinds that liars and broken disks make."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(out) + 1)
        kind = chance.randrange(7)
        if kind == 0 and out:
            out[place % len(out)] = chance.randrange(256)
        elif kind == 1:
            out[place : place + 8] = struct.pack("<Q", chance.choice(_EDGES))
        elif kind == 2:
            out[place : place + 4] = struct.pack("<I", chance.choice(_EDGES) & 0xFFFFFFFF)
        elif kind == 3:
            del out[place : place + chance.randint(1, 16)]
        elif kind == 4:
            out[place:place] = chance.randbytes(chance.randint(1, 16))
        elif kind == 5:
            out[place:place] = out[place : place + chance.randint(1, 64)] * chance.choice((1, 2, 50))
        else:
            del out[place:]
    return bytes(out)


CASES: Final[tuple[tuple[str, bytes, Callable[[Path], object]], ...]] = (
    ("GGUF", model_files.gguf(), gguf_header.read),
    ("safetensors", model_files.safetensors(), safetensors_header.read),
    ("ONNX", ONNX, onnx_graph.read),
    ("settings", SETTINGS, settings.read),
    ("sentencepiece", SENTENCEPIECE, texts.check_vocabulary),
    ("anything", model_files.gguf()[:64], disguise.what),
)


@pytest.mark.attack("mutated model files")
@pytest.mark.parametrize(("honest", "read"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_mutated_files_are_read_or_refused_and_never_crash(
    tmp_path: Path, soak: int, honest: bytes, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(honest)
    read(path)
    chance, refused = random.Random(len(honest)), 0
    for number in range(MUTATIONS * soak):
        data = mutated(honest, chance)
        path.write_bytes(data)
        measured = number % 50 == 0  # measuring memory costs much time
        if measured:
            tracemalloc.start()
        began = time.process_time()
        try:
            read(path)
        except FileUnsafe:
            refused += 1
        taken = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1] if measured else 0
        tracemalloc.stop()
        assert taken < SLOWEST_S, data
        assert peak < MOST_BYTES, data
    if read is not disguise.what:
        assert refused > MUTATIONS * soak / 10
