"""Texts that a person names are read whole, and never beyond their bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract import small_file


def test_a_text_within_the_bound_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("Übung\n", encoding="utf-8")
    assert small_file.read_text(file, 7) == "Übung\n"


def test_a_larger_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_bytes(b"x" * 8)
    with pytest.raises(small_file.TooLarge, match="larger than 7 bytes"):
        small_file.read_text(file, 7)


def test_a_file_without_an_end_is_refused_too() -> None:
    with pytest.raises(small_file.TooLarge):
        small_file.read_text(Path("/dev/zero"), 1 << 20)


def test_the_mark_that_some_editors_put_first_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_bytes(b"\xef\xbb\xbf[fleet]\n")
    assert small_file.read_text(tmp_path / "fleet.toml", 100) == "[fleet]\n"
