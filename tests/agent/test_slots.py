from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import bundle


def adopt(slots: Slots, folder: Path, content: bytes) -> str:
    (folder / "files" / "sub").mkdir(parents=True)
    (folder / "files" / "model.gguf").write_bytes(content)
    (folder / "files" / "sub" / "config.json").write_bytes(b"{}")
    listed = bundle.from_folder(folder / "files")
    slots.adopt(listed.digest, listed.encode(), folder / "files")
    return listed.digest


def test_an_adopted_artifact_is_there_and_verifies(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    name = adopt(slots, tmp_path / "one", b"GGUF")
    assert slots.has(name)
    assert not slots.has("0" * 64)
    slots.verify(name)
    assert [file.path for file in slots.bundle(name).files] == ["model.gguf", "sub/config.json"]


def flip(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGUG")


def shorten(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGU")


def lose(folder: Path) -> None:
    (folder / "sub" / "config.json").unlink()


def add(folder: Path) -> None:
    (folder / "sub" / "evil.py").write_bytes(b"")


def link(folder: Path) -> None:
    (folder / "model.gguf").unlink()
    os.symlink("/etc/hostname", folder / "model.gguf")


def forge_list(folder: Path) -> None:
    document = folder.parent / f"{folder.name}.bundle"
    document.write_bytes(document.read_bytes().replace(b"model", b"modem"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip, "model.gguf: changed"),
        (shorten, "model.gguf: changed"),
        (lose, "config.json: missing"),
        (add, "evil.py: does not belong"),
        (link, "neither a file nor a folder"),
        (forge_list, "changed since it was verified"),
    ],
)
def test_a_damaged_artifact_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None], named: str) -> None:
    slots = Slots(tmp_path)
    name = adopt(slots, tmp_path / "one", b"GGUF")
    slots.verify(name)
    damage(slots.artifact(name))
    with pytest.raises(ArtifactDamaged, match=named):
        slots.verify(name)


def test_collecting_never_touches_what_is_kept(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    kept = [adopt(slots, tmp_path / "one", b"1"), adopt(slots, tmp_path / "two", b"2")]
    old = adopt(slots, tmp_path / "three", b"3")
    slots.partial("a" * 64).mkdir()
    slots.partial("b" * 64).mkdir()
    assert slots.collect({*kept, "a" * 64}) == sorted([old, "b" * 64])
    for name in kept:
        slots.verify(name)
    assert not slots.has(old)
    assert not slots.document(old).exists()
    assert slots.partial("a" * 64).is_dir()
    assert slots.collect({*kept, "a" * 64}) == []


def test_a_removal_that_was_interrupted_is_finished_at_the_next_start(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    name = adopt(slots, tmp_path / "one", b"1")
    trash = tmp_path / "artifacts" / f".removed-{name}"
    os.rename(slots.artifact(name), trash)
    assert not slots.has(name)
    Slots(tmp_path)
    assert not trash.exists()


def test_adopting_again_replaces_a_damaged_folder(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    name = adopt(slots, tmp_path / "one", b"1")
    flip(slots.artifact(name))
    assert adopt(slots, tmp_path / "again", b"1") == name
    slots.verify(name)
