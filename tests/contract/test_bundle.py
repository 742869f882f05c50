"""Bundles: one identity for the same files, and nothing that could leave its folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import bundle, canonical
from edgewright_contract.bundle import BundleError, BundleFile

SHA = "0" * 64


def one(path: str) -> bundle.Bundle:
    return bundle.make([BundleFile(path, 1, SHA)])


def test_the_same_files_have_the_same_name_whatever_their_order() -> None:
    files = [BundleFile("b", 1, SHA), BundleFile("a/c", 2, SHA)]
    assert bundle.make(files).digest == bundle.make(files[::-1]).digest
    assert bundle.parse(bundle.make(files).encode()) == bundle.make(files)


def test_the_canonical_bytes_are_fixed_for_ever() -> None:
    # Identities stand in signed metadata on devices: a change of these bytes would orphan every artifact.
    made = bundle.make([BundleFile("model.gguf", 3, SHA)])
    assert made.encode() == (
        b'{"edgewright_bundle":1,"files":[{"path":"model.gguf","sha256":"' + b"0" * 64 + b'","size":3}]}'
    )
    assert made.digest == "1f60ac59a8f0b7ac82d5c88984a23da5959dcf6d78e9dbf81c65cd3bd2ec31e8"


@pytest.mark.parametrize(
    "path",
    [
        "../model.gguf",
        "a/../../b",
        "/etc/passwd",
        "a//b",
        "./a",
        "",
        "a\\b",
        "C:model",
        "a\0b",
        "con",
        "aux.json",
        "a/NUL/b",
        "lpt1.txt",
        "trailing.",
        "trailing ",
        ".hidden",
        "a\nb",
        "x" * 300,
        "ä",
        "model\u202egguf",
    ],
)
def test_a_path_that_could_leave_the_folder_or_fool_a_file_system_is_refused(path: str) -> None:
    assert one("folder/model-00001.safetensors").files[0].path
    with pytest.raises(BundleError):
        one(path)
    raw = {"edgewright_bundle": 1, "files": [{"path": path, "sha256": SHA, "size": 1}]}
    with pytest.raises(BundleError):
        bundle.parse(canonical.encode(raw))


def test_names_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(BundleError, match="differ only in case"):
        bundle.make([BundleFile("Model.gguf", 1, SHA), BundleFile("model.gguf", 1, SHA)])


def test_a_path_cannot_be_file_and_folder() -> None:
    with pytest.raises(BundleError, match="both a file and a folder"):
        bundle.make([BundleFile("a", 1, SHA), BundleFile("A/b/c", 1, SHA)])


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": 1 << 50},
        {"size": True},
        {"size": 1.0},
        {"size": "1"},
        {"sha256": "0" * 63},
        {"sha256": "A" * 64},
        {"path": 3},
    ],
)
def test_lying_entries_are_refused(change: dict[str, object]) -> None:
    honest = {"path": "a", "sha256": SHA, "size": 1}
    assert bundle.parse(canonical.encode({"edgewright_bundle": 1, "files": [honest]}))
    with pytest.raises(BundleError):
        bundle.parse(canonical.encode({"edgewright_bundle": 1, "files": [honest | change]}))


def test_only_the_canonical_spelling_is_a_bundle() -> None:
    made = one("a")
    spaced = json.dumps(json.loads(made.encode()), sort_keys=True).encode()
    assert bundle.parse(made.encode()) == made
    with pytest.raises(BundleError, match="canonical"):
        bundle.parse(spaced)


def test_too_many_files_and_too_many_bytes_are_refused_before_anything_is_made_of_them() -> None:
    with pytest.raises(BundleError, match="at most 10000"):
        bundle.make([BundleFile(f"f{n}", 1, SHA) for n in range(bundle.MAX_FILES + 1)])
    with pytest.raises(BundleError, match="at most"):
        bundle.parse(b" " * (bundle.MAX_BUNDLE_BYTES + 1))


def test_deeply_nested_rubbish_is_an_error_not_a_crash() -> None:
    with pytest.raises(BundleError):
        bundle.parse(b"[" * 200_000)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_bundle_or_a_bundle_error(data: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert bundle.parse(data).encode() == data


def test_a_folder_with_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert bundle.from_folder(tmp_path).size == 3
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="neither a file nor a folder"):
        bundle.from_folder(tmp_path)
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="neither a file nor a folder"):
        bundle.from_folder(tmp_path)
