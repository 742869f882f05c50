"""Code and archives are known by their bytes under any name, and raw weights are not taken for them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import py_compile
import random
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract.model_files import disguise
from tests import model_files


class Bomb:
    """What a pickle of it would run; it is never loaded here."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/pickle-was-run",)


def what(folder: Path, data: bytes, name: str = "weights.data") -> str:
    path = folder / name
    path.write_bytes(data)
    return disguise.what(path)


def honest_files_pass(folder: Path) -> None:
    for runtime in ("gguf", "mlx", "onnx"):
        for name, data in model_files.artifact(runtime).items():
            assert what(folder, data, name) == "", name


@pytest.mark.attack("pickle under another name")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "weights.data", "tokenizer.model", "NOTICE"])
def test_a_pickle_of_any_protocol_is_known_under_any_name(tmp_path: Path, name: str, protocol: int) -> None:
    honest_files_pass(tmp_path)
    for thing in (Bomb(), {"weights": [0.5] * 100, "more": Bomb()}):
        assert "a pickle" in what(tmp_path, pickle.dumps(thing, protocol), name)


@pytest.mark.attack("pickle that hides its end or its beginning")
@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps([0.5] * 40_000 + [Bomb()], 4),  # the call comes behind what is looked at
        pickle.dumps(Bomb(), 2) + os.urandom(4096),  # a loader stops at the first end
        b"cos\nsystem\n(S'id'\ntR.",
        b"(cos\nsystem\nS'id'\no.",
        b"I1\n0cos\nsystem\n(S'id'\ntR.",
        b"(S'id'\nios\nsystem\n.",
        b"\x80\x00cos\nsystem\n(S'id'\ntR.",
        # torch before its archives: a number, then the pickle proper.
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(Bomb(), 2),
    ],
)
def test_a_pickle_that_is_cut_padded_or_old_is_known(tmp_path: Path, data: bytes) -> None:
    honest_files_pass(tmp_path)
    assert "a pickle" in what(tmp_path, data)


def _zip(names: dict[str, bytes], before: bytes = b"") -> bytes:
    out = io.BytesIO(before)
    out.seek(0, 2)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    return out.getvalue()


@pytest.mark.attack("archive under another name")
@pytest.mark.parametrize(
    ("data", "found"),
    [
        (_zip({"archive/data.pkl": pickle.dumps(Bomb())}), "zip"),
        (_zip({"__main__.py": b"print()"}, before=bytes(1000)), "zip"),
        (_zip({}), "zip"),
        (_tar(), "tar"),
        (gzip.compress(b"x" * 100, mtime=0), "gzip"),
        (bz2.compress(b"x" * 100), "bzip2"),
        (lzma.compress(b"x" * 100), "xz"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(26), "7z"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(20), "rar"),
        (b"\x28\xb5\x2f\xfd\x24\x05" + bytes(20), "zstd"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "numpy"),
    ],
)
def test_an_archive_is_known_under_any_name(tmp_path: Path, data: bytes, found: str) -> None:
    honest_files_pass(tmp_path)
    assert found in what(tmp_path, data)


def _pe() -> bytes:
    return b"MZ" + bytes(58) + struct.pack("<I", 128) + bytes(64) + b"PE\0\0" + bytes(100)


def _compiled(folder: Path) -> bytes:
    source = folder / "evil.py"
    source.write_text("import os\n")
    return Path(py_compile.compile(str(source), doraise=True) or "").read_bytes()


@pytest.mark.attack("native code under another name")
@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(60), "ELF"),
        (b"\x7fELF\x01\x02\x01" + bytes(60), "ELF"),
        (_pe(), "Windows"),
        (struct.pack("<4I", 0xFEEDFACF, 0x0100000C, 0, 6), "Mach-O"),
        (struct.pack(">4I", 0xFEEDFACF, 0x0100000C, 0, 2), "Mach-O"),
        (struct.pack("<4I", 0xFEEDFACE, 7, 3, 8), "Mach-O"),
        (struct.pack(">2I", 0xCAFEBABE, 2) + bytes(40), "Mach-O"),
        (struct.pack(">2I", 0xCAFEBABF, 1) + bytes(40), "Mach-O"),
        (struct.pack(">2I", 0xCAFEBABE, 61) + bytes(40), "Java"),
        (b"\0asm\x01\0\0\0" + bytes(9), "WebAssembly"),
        (b"\x1bLuaT\0\x19\x93", "Lua"),
    ],
)
def test_native_code_is_known_under_any_name(tmp_path: Path, data: bytes, found: str) -> None:
    honest_files_pass(tmp_path)
    assert found in what(tmp_path, data)
    assert "ELF" in what(tmp_path, Path("/bin/sh").read_bytes()) or sys.platform != "linux"


@pytest.mark.attack("script or compiled Python under another name")
def test_a_script_is_known_under_any_name(tmp_path: Path) -> None:
    honest_files_pass(tmp_path)
    for script in (b"#!/bin/sh\nid\n", b"#! /usr/bin/env python3\n", b"#!/usr/bin/perl -w\n"):
        assert what(tmp_path, script, "README") == "a script"
    assert what(tmp_path, _compiled(tmp_path)) == "compiled Python"


@pytest.mark.parametrize(
    "head",
    [
        b"MZ",
        b"\x80\x02",
        b"\x80\x04\x95",
        b"\x1f\x8b",
        b"PK",
        b"\x7fE",
        b"BZh",
        b"#!",
        b"\xca\xfe",
        b"\xce\xfa\xed",
        b"c",
    ],
)
def test_weights_that_happen_to_begin_like_code_are_left_alone(tmp_path: Path, head: bytes, soak: int) -> None:
    chance = random.Random(head)
    wrong = 0
    for _ in range(300 * soak):
        wrong += what(tmp_path, head + chance.randbytes(2000)) != ""
    # A pickle of data may begin with almost anything after its two bytes, which themselves are one in 10,000 files.
    assert wrong <= (0.02 if head[:1] == b"\x80" else 0.004) * 300 * soak


@pytest.mark.parametrize(
    "words",
    ["cat\ndog\nemu\n", "The quick brown fox.", "#version: 0.2\nĠ t\nĠ a\n", "c\nd\ne\n", "(R", "# Model\n", "."],
)
def test_words_are_no_pickle(tmp_path: Path, words: str) -> None:
    assert what(tmp_path, words.encode(), "merges.txt") == ""
