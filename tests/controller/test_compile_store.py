"""The artifact store: what is in it is whole, read-only, and survives a crash at any point."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgewright_contract import block_index, bundle, digest
from edgewright_controller.compile.store import ArtifactStore, StoreError


def _folder(place: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return place


MODEL = {"model.gguf": os.urandom(2_500_000), "sub/tokenizer.json": b"{}", "empty": b""}


def test_an_artifact_is_named_by_its_bundle_and_read_block_by_block(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    expected = bundle.from_folder(_folder(tmp_path / "reference", MODEL))

    stored = store.add(_folder(tmp_path / "made", MODEL))

    assert stored.bundle == expected.digest
    assert store.has(stored.bundle)
    assert store.bundle(stored.bundle) == expected
    assert not (tmp_path / "made").exists()
    with store.open_object(stored.block_index) as file:
        document = file.read()
    assert len(document) == stored.block_index_length
    index = block_index.parse(document, expected)
    model = b"".join(store.read_block(stored.bundle, b) for b in index.blocks if b.path == "model.gguf")
    assert model == MODEL["model.gguf"]
    with store.open_object(stored.bundle) as file:
        assert len(file.read()) == stored.bundle_length


def test_files_are_read_only_whatever_the_toolchain_left(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    made = _folder(tmp_path / "made", MODEL)
    (made / "model.gguf").chmod(0o600)
    stored = store.add(made)
    modes = {file.stat().st_mode & 0o777 for file in store.path(stored.bundle).rglob("*") if file.is_file()}
    assert modes == {0o444}


def test_a_lost_or_cut_file_is_seen_at_once_and_a_flipped_byte_when_all_is_read(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    stored = store.add(_folder(tmp_path / "made", MODEL))
    assert store.has(stored.bundle)
    assert store.is_intact(stored.bundle)
    file = store.path(stored.bundle) / "model.gguf"
    file.chmod(0o644)
    file.write_bytes(MODEL["model.gguf"][:-1] + bytes([MODEL["model.gguf"][-1] ^ 1]))
    assert store.has(stored.bundle)
    assert not store.is_intact(stored.bundle)
    file.write_bytes(MODEL["model.gguf"][:-1])
    assert not store.has(stored.bundle)
    file.unlink()
    assert not store.has(stored.bundle)
    assert not store.is_intact(stored.bundle)


def test_adding_again_mends_a_damaged_file(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    stored = store.add(_folder(tmp_path / "made", MODEL))
    damaged = store.path(stored.bundle) / "model.gguf"
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * len(MODEL["model.gguf"]))

    again = store.add(_folder(tmp_path / "again", MODEL))

    assert again == stored
    assert damaged.read_bytes() == MODEL["model.gguf"]
    assert not (tmp_path / "again").exists()


def test_a_flipped_byte_is_served_as_it_stands_for_the_device_to_refuse(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    stored = store.add(_folder(tmp_path / "made", MODEL))
    with store.open_object(stored.block_index) as file:
        first = block_index.parse(file.read(), store.bundle(stored.bundle)).blocks[0]
    assert digest.of_bytes(store.read_block(stored.bundle, first)) == first.sha256.hex()
    damaged = store.path(stored.bundle) / first.path
    damaged.chmod(0o644)
    data = bytearray(damaged.read_bytes())
    data[0] ^= 1
    damaged.write_bytes(data)
    assert digest.of_bytes(store.read_block(stored.bundle, first)) != first.sha256.hex()


def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    stored = store.add(_folder(tmp_path / "made", MODEL))
    with store.open_object(stored.block_index) as file:
        last = block_index.parse(file.read(), store.bundle(stored.bundle)).blocks[-2]
    path = store.path(stored.bundle) / "model.gguf"
    path.chmod(0o644)
    os.truncate(path, 10)
    with pytest.raises(StoreError, match=rf"model\.gguf: 0 bytes at {last.offset}"):
        store.read_block(stored.bundle, last)


def test_what_a_crash_left_is_swept_and_the_rest_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    stored = store.add(_folder(tmp_path / "made", MODEL))
    _folder(tmp_path / "store" / "artifacts" / ".half", {"model.gguf": b"x"})
    (tmp_path / "store" / "objects" / f".{'a' * 64}.tmp").write_bytes(b"x")

    opened = ArtifactStore(tmp_path / "store")

    assert opened.has(stored.bundle)
    assert sorted(p.name for p in (tmp_path / "store" / "artifacts").iterdir()) == [stored.bundle]
    assert len(list((tmp_path / "store" / "objects").iterdir())) == 2


def test_names_that_are_not_digests_never_reach_the_file_system(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    for name in ("../../etc/passwd", "", "a" * 63, "A" * 64):
        with pytest.raises(StoreError):
            store.path(name)
        with pytest.raises(StoreError):
            store.open_object(name)
    with pytest.raises(KeyError):
        store.open_object("0" * 64)


def test_a_link_in_the_folder_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    made = _folder(tmp_path / "made", MODEL)
    (made / "secret").symlink_to("/etc/passwd")
    with pytest.raises(bundle.BundleError, match="secret"):
        store.add(made)
