"""A file written by the rule is whole, or it is the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract import durable


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    durable.write(file, b"first", mode=0o600)
    durable.write(file, b"second", mode=0o600)
    assert file.read_bytes() == b"second"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "inside").write_bytes(b"kept")
    with pytest.raises(OSError, match="taken"):
        durable.write(target, b"new")
    assert (target / "inside").read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [target]


def test_folders_are_made_with_their_parents_and_kept(tmp_path: Path) -> None:
    durable.make_folder(tmp_path / "a" / "b", mode=0o700)
    (tmp_path / "a" / "b" / "file").write_bytes(b"kept")
    durable.make_folder(tmp_path / "a" / "b", mode=0o700)
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"kept"
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_file_where_a_folder_should_be_is_said_to_be_no_folder(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(NotADirectoryError):
        durable.make_folder(tmp_path / "state")
    with pytest.raises(NotADirectoryError):
        durable.make_folder(tmp_path / "state" / "below")
