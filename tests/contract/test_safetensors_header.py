"""The header of a safetensors file: an honest one passes, and each lie in it is refused in words."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract.model_files import FileUnsafe, safetensors_header
from tests import model_files
from tests.model_files import safetensors_of

ONE: dict[str, Any] = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


def read(folder: Path, data: bytes) -> safetensors_header.Header:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return safetensors_header.read(path)


def refused(folder: Path, data: bytes, why: str) -> None:
    assert read(folder, model_files.safetensors()).elements == {"F32": 4, "BF16": 4}
    began = time.process_time()
    with pytest.raises(FileUnsafe, match=why):
        read(folder, data)
    assert time.process_time() - began < 1


def of(header: str | bytes, size: int = 16) -> bytes:
    return safetensors_of(header if isinstance(header, bytes) else header.encode(), bytes(size))


def tensors(size: int = 16, **described: Any) -> bytes:
    return of(json.dumps(described), size)


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}   ',
        '{"a" :\t{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]} ,\n'
        '"b":{"dtype":"I8","shape":[0],"data_offsets":[16,16]} }',
        '{"a":{"data_offsets":[0,16],"dtype":"F32","shape":[4]},"__metadata__":{}}',
        '{"__metadata__":{"a": "{\\"b\\": [1]}", "ü":""}, "\\u0061":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}',
        '{"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"t":{"dtype":"F4","shape":[16],"data_offsets":[8,16]}}',
    ],
)
def test_honest_headers_are_read_however_they_are_spaced(tmp_path: Path, header: str) -> None:
    assert sum(read(tmp_path, of(header)).elements.values()) >= 4


@pytest.mark.attack("safetensors header that overflows")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut off"),
        (b"\x10\0\0\0\0\0\0", "cut off"),
        (struct.pack("<Q", (1 << 64) - 1) + b"{}", "cut off"),
        (struct.pack("<Q", 1 << 63) + b"{}", "cut off"),
        (struct.pack("<Q", 3) + b"{}", "cut off"),
        (struct.pack("<Q", 0), "cut off"),
        (safetensors_of(b" " * ((16 << 20) + 1), b""), "too long"),
    ],
)
def test_a_header_longer_than_the_file_or_any_sense_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


@pytest.mark.attack("safetensors offsets outside, overlapping or with holes")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tensors(a={**ONE, "data_offsets": [16, 32]}), "overlap or leave gaps"),
        (tensors(a={**ONE, "data_offsets": [-16, 0]}), "not a whole number"),
        (tensors(a={**ONE, "data_offsets": [16, 0]}), "do not hold"),
        (tensors(a={**ONE, "data_offsets": [1 << 62, (1 << 62) + 16]}), "overlap or leave gaps"),
        (tensors(a={**ONE, "data_offsets": [1 << 64, (1 << 64) + 16]}), "not a whole number"),
        (tensors(a=ONE, b=ONE), "overlap or leave gaps"),
        (tensors(32, a=ONE, b={**ONE, "data_offsets": [8, 24]}), "overlap or leave gaps"),
        (tensors(48, a=ONE, b={**ONE, "data_offsets": [32, 48]}), "overlap or leave gaps"),
        (tensors(15, a=ONE), "cut off or grew"),
        (tensors(17, a=ONE), "cut off or grew"),
        (tensors(a={**ONE, "data_offsets": [0]}), "description"),
        (tensors(a={**ONE, "data_offsets": [0, 16, 16]}), "description"),
        (tensors(a={**ONE, "data_offsets": [0.0, 16.0]}), "not a whole number"),
        (tensors(a={**ONE, "data_offsets": [False, 16]}), "not a whole number"),
    ],
)
def test_a_tensor_outside_its_place_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, data, why)


@pytest.mark.attack("safetensors shape that does not fit its span")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"shape": [5]}, "do not hold 5 of F32"),
        ({"shape": [1 << 62, 1 << 62]}, "do not hold"),
        ({"shape": [1 << 63]}, "not a whole number"),
        ({"shape": [-2, -2]}, "not a whole number"),
        ({"shape": [2.0, 2]}, "not a whole number"),
        ({"shape": [True, 4]}, "not a whole number"),
        ({"shape": "4"}, "not a whole number"),
        ({"shape": None}, "description"),
        ({"shape": [1] * 17}, "17 dimensions"),
        ({"dtype": "F13"}, "F13"),
        ({"dtype": ["F32"]}, "description"),
        ({"dtype": "F4"}, "do not hold"),
        ({"more": 1}, "'more'"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    refused(tmp_path, tensors(a=ONE | change), why)


@pytest.mark.attack("safetensors with one name twice")
@pytest.mark.parametrize(
    ("header", "why"),
    [
        (f'{{"a":{json.dumps(ONE)},"a":{json.dumps(ONE)}}}', "'a' is described twice"),
        (f'{{"a":{json.dumps(ONE)},"\\u0061":{json.dumps(ONE)}}}', "'a' is described twice"),
        ('{"__metadata__":{},"__metadata__":{}}', "described twice"),
        ('{"a":{"dtype":"F32","shape":[4],"shape":[9],"data_offsets":[0,16]}}', "'shape' is there twice"),
        ('{"__metadata__":{"format":"pt","format":"mlx"}}', "'format' is there twice"),
    ],
)
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, header: str, why: str) -> None:
    refused(tmp_path, of(header), why)


@pytest.mark.attack("safetensors metadata that is no table of texts")
@pytest.mark.parametrize(
    "metadata",
    ["[]", "null", '{"a":1}', '{"a":{"b":"c"}}', '{"a":["b"]}', '"text"', '{"a":"b"', '{"a":"\n"}', "{" * 99],
)
def test_metadata_of_anything_but_texts_is_refused(tmp_path: Path, metadata: str) -> None:
    refused(tmp_path, of(f'{{"__metadata__":{metadata},"a":{json.dumps(ONE)}}}'), "__metadata__")


@pytest.mark.attack("safetensors header that is a JSON bomb")
@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b'{"a":' * (1 << 20), "no description"),
        (b"[" * (8 << 20), "table"),
        (b'{"a":{"shape":[' + b"[" * (8 << 20), "no description"),
        (b'{"a":{"shape":[' + b"0," * (4 << 20) + b"0]}}", "no description"),
        (b'{"' + b"\\u0061" * (2 << 20) + b'":1}', "not JSON as the format"),
        (b'{"__metadata__":{"a":"' + b'\\"' * (7 << 20) + b'"}}', "__metadata__"),
        (b'{"__metadata__":{' + b'"a":"b",' * (1 << 20) + b"}}", "__metadata__"),
        (b'{"__metadata__":{' + b'"":"",' * 1025 + b'"":""}}', "__metadata__"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 900 + b'],"data_offsets":[0,16]}}', "not a whole number"),
        (b"{" + b" " * (16 << 19) + b"}x", "not JSON as the format"),
        (b'{"a":\xff}', "no description"),
        (b'{"\xff":{}}', "not JSON"),
    ],
    ids=[
        *("depth", "list", "depth-below", "long-list", "long-name", "escapes", "pairs", "pairs-1026", "digits"),
        *("blanks", "byte", "name"),
    ],
)
def test_a_header_that_would_fill_the_memory_is_refused_cheaply(tmp_path: Path, header: bytes, why: str) -> None:
    refused(tmp_path, of(header, 0), why)
    tracemalloc.start()
    with pytest.raises(FileUnsafe):
        read(tmp_path, of(header, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The header itself, read here twice over by the test, and a little more.
    assert peak < 3 * len(header) + (16 << 20)


@pytest.mark.bounds
def test_a_hundred_thousand_tensors_are_read_in_little_memory(tmp_path: Path) -> None:
    described = ",".join(f'"{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{n + 1}]}}' for n in range(100_000))
    path = tmp_path / "model.safetensors"
    path.write_bytes(of(f"{{{described}}}", 100_000))
    tracemalloc.start()
    assert len(safetensors_header.read(path).names) == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
