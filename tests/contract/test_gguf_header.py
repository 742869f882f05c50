"""The bounded look at a GGUF header: an honest file passes, and each lie in it is refused in words."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from edgewright_contract.model_files import FileUnsafe, gguf_header
from tests import model_files
from tests.model_files import PAIRS, TENSORS, WEIGHTS, gguf_of, pair, tensor, text

LONG = 1 << 63


def read(folder: Path, data: bytes) -> gguf_header.GgufHeader:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return gguf_header.read(path)


def refused(folder: Path, data: bytes, why: str) -> None:
    assert read(folder, model_files.gguf()).tensors == 2
    began = time.process_time()
    with pytest.raises(FileUnsafe, match=why):
        read(folder, data)
    assert time.process_time() - began < 1


def with_pair(*pairs: bytes) -> bytes:
    return gguf_of([*PAIRS, *pairs], TENSORS, WEIGHTS)


def with_tensor(*tensors: bytes) -> bytes:
    return gguf_of(PAIRS, tensors, WEIGHTS)


def test_an_honest_header_is_read_with_its_template(tmp_path: Path) -> None:
    header = read(tmp_path, model_files.gguf())
    assert (header.tensors, header.chat_template) == (2, model_files.TEMPLATE)
    assert read(tmp_path, gguf_of(PAIRS[:2], [], b"")).chat_template is None
    assert read(tmp_path, gguf_of(PAIRS, TENSORS, WEIGHTS, version=2)).tensors == 2
    aligned = pair("general.alignment", 4, struct.pack("<I", 64))
    padded = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + aligned + tensor("w", (16,))
    assert read(tmp_path, padded + bytes(-len(padded) % 64) + bytes(64)).tensors == 1


@pytest.mark.attack("GGUF of an unknown or foreign version")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begin with GGUF"),
        (b"GGU", "begin with GGUF"),
        (b"GGJT" + model_files.gguf()[4:], "begin with GGUF"),
        (gguf_of(PAIRS, TENSORS, WEIGHTS, version=1), "version 1; 2 and 3"),
        (gguf_of(PAIRS, TENSORS, WEIGHTS, version=0xFFFFFFFF), "version 4294967295"),
        (b"GGUF" + struct.pack(">IQQ", 3, 2, 5) + bytes(99), "big-endian"),
        (model_files.gguf()[:11], "behind the end"),
    ],
)
def test_what_is_no_gguf_of_ours_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


@pytest.mark.attack("GGUF header with absurd counts")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "too many"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, (1 << 64) - 1), "too many"),
        (b"GGUF" + struct.pack("<IQQ", 3, 5, 0), "behind the end"),
        (with_pair(pair("a", 9, struct.pack("<IQ", 8, 1 << 62))), "array of 4611686018427387904 texts"),
        (with_pair(pair("a", 9, struct.pack("<IQ", 12, 1 << 61))), "behind the end"),
        (with_pair(pair("a", 9, struct.pack("<IQ", 0, LONG))), "behind the end"),
        (with_pair(pair("a", 9, struct.pack("<IQ", 8, 1 << 20))), "behind the end"),
        (with_tensor(text("t") + struct.pack("<I", 5) + bytes(40)), "5 dimensions"),
        (with_tensor(text("t") + struct.pack("<I", 0xFFFFFFFF)), "4294967295 dimensions"),
        (with_tensor(text("t") + struct.pack("<I", 0) + bytes(12)), "0 dimensions"),
    ],
)
def test_a_count_that_the_file_cannot_hold_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


@pytest.mark.attack("GGUF header with absurd lengths")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_pair(pair("a", 8, struct.pack("<Q", (1 << 64) - 1))), "behind the end"),
        (with_pair(pair("a", 8, struct.pack("<Q", LONG))), "behind the end"),
        (with_pair(pair("tokenizer.chat_template2", 9, struct.pack("<IQQ", 8, 1, LONG))), "behind the end"),
        (with_pair(struct.pack("<Q", LONG) + b"key"), "name of 9223372036854775808 bytes"),
        (with_pair(pair("k" * 1025, 4, bytes(4))), "name of 1025 bytes"),
        (with_tensor(tensor("t" * 64, (1,))), "name of 64 bytes"),
        (gguf_of([pair("tokenizer.chat_template", 8, struct.pack("<Q", LONG))], [], b""), "at most 1,048,576"),
        (gguf_of([pair("tokenizer.chat_template", 8, text(bytes(1 << 21)))], [], b""), "at most 1,048,576"),
        (gguf_of([pair("tokenizer.chat_template", 8, text(b"\xff\xfe"))], [], b""), "not UTF-8"),
        (gguf_of([pair("tokenizer.chat_template", 4, bytes(4))], [], b""), "is of type 4"),
    ],
)
def test_a_length_beyond_the_file_or_any_sense_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


@pytest.mark.attack("GGUF header with absurd offsets")
@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ([tensor("a", (32, 4), 0, 1 << 40)], "where 0 is expected"),
        ([tensor("a", (32, 4), 0, (1 << 64) - 512)], "where 0 is expected"),
        ([tensor("a", (32, 4)), tensor("b", (32, 2), 8, 0)], "overlap or leave gaps"),
        ([tensor("a", (32, 4)), tensor("b", (32, 2), 8, 480)], "overlap or leave gaps"),
        ([tensor("a", (32, 4)), tensor("b", (32, 2), 8, 544)], "overlap or leave gaps"),
        ([tensor("a", (32, 4)), tensor("b", (32, 2), 8, 513)], "overlap or leave gaps"),
        ([tensor("a", (32, 5000))], "ends behind the end"),
        ([tensor("a", (1 << 40, 1 << 20))], "ends behind the end"),
    ],
)
def test_a_tensor_outside_its_place_is_refused(tmp_path: Path, tensors: list[bytes], why: str) -> None:
    refused(tmp_path, with_tensor(*tensors), why)


@pytest.mark.attack("GGUF tensor whose size overflows")
@pytest.mark.parametrize(
    ("shape", "kind", "why"),
    [
        ((1 << 32, 1 << 32), 0, "more elements than can be counted"),
        ((1 << 62, 4), 0, "more elements than can be counted"),
        ((LONG,), 24, "more elements than can be counted"),
        (((1 << 64) - 1, 1), 24, "more elements than can be counted"),
        ((1 << 32, 1 << 31), 0, "more elements"),
        ((1 << 61, 1), 28, "ends behind the end"),
        ((0, 1), 0, "or none"),
        ((32, 0), 8, "or none"),
        ((33, 1), 8, "no blocks of 32"),
        ((128, 1), 12, "no blocks of 256"),
        ((32, 1), 4, "type 4, which this version does not know"),
        ((32, 1), 0xFFFFFFFF, "type 4294967295"),
    ],
)
def test_a_shape_that_multiplies_past_every_counter_is_refused(
    tmp_path: Path, shape: tuple[int, ...], kind: int, why: str
) -> None:
    refused(tmp_path, with_tensor(tensor("t", shape, kind)), why)


@pytest.mark.attack("GGUF with an absurd alignment")
@pytest.mark.parametrize("alignment", [0, 1, 3, 7, 48, 1 << 17, 1 << 31, 0xFFFFFFFF])
def test_an_alignment_that_divides_by_nothing_is_refused(tmp_path: Path, alignment: int) -> None:
    refused(tmp_path, with_pair(pair("general.alignment", 4, struct.pack("<I", alignment))), "general.alignment of")
    refused(tmp_path, with_pair(pair("general.alignment", 10, struct.pack("<Q", 32))), "is of type 10")


@pytest.mark.attack("GGUF with one name twice")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_pair(pair("llama.block_count", 4, struct.pack("<I", 1 << 30))), "'llama.block_count' is there twice"),
        (with_pair(pair("tokenizer.chat_template", 8, text("other"))), "'tokenizer.chat_template' is there twice"),
        (with_tensor(tensor("a", (32, 4)), tensor("a", (32, 2), 8, 512)), "tensor 'a' is there twice"),
    ],
)
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


@pytest.mark.attack("GGUF with nested or unknown values")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_pair(pair("a", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 9, 1))), "array of arrays"),
        (with_pair(pair("a", 13, bytes(8))), "unknown type 13"),
        (with_pair(pair("a", 9, struct.pack("<IQ", 99, 1))), "unknown type 99"),
    ],
)
def test_a_value_that_no_reader_knows_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


def _texts(count: int) -> bytes:
    return pair("a", 9, struct.pack("<IQ", 8, count) + bytes(8 * count))


@pytest.mark.bounds
@pytest.mark.attack("GGUF header that costs time or memory")
@pytest.mark.parametrize(
    "data",
    [
        gguf_of([_texts(gguf_header.MAX_STRINGS)], [], b""),
        gguf_of([_texts(gguf_header.MAX_STRINGS - 1), pair("b", 9, struct.pack("<IQ", 8, 2))], [], b""),
        gguf_of([], [tensor(f"{n:063}", (8,), 0, 32 * n) for n in range(gguf_header.MAX_TENSORS)], b""),
        gguf_of([pair(f"{n:01024}", 0, b"a") for n in range(gguf_header.MAX_KEYS)], [], b""),
    ],
    ids=["texts", "texts-in-two", "tensors", "keys"],
)
def test_the_longest_header_costs_less_than_a_second_and_little_memory(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    began = time.process_time()
    _try(path)
    assert time.process_time() - began < 1
    tracemalloc.start()
    _try(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def _try(path: Path) -> None:
    try:
        gguf_header.read(path)
    except FileUnsafe:
        return


def test_a_header_of_holes_is_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_of([pair("a", 8, struct.pack("<Q", 1 << 38))], [], b""))
    with open(path, "r+b") as file:
        file.truncate(1 << 39)  # costs no disk
    with pytest.raises(FileUnsafe, match="longer than 268,435,456 bytes"):
        gguf_header.read(path)
