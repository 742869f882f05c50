"""The wire check accepts additions and refuses what an older program would misread."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_wire

BASE = """
syntax = "proto3";
package t;
service S { rpc Ask(Q) returns (stream A); }
message Q { string text = 1; Kind kind = 2; }
message A { uint64 n = 1; }
enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; }
"""


def facts_of(folder: Path, text: str) -> check_wire.Facts:
    folder.mkdir(exist_ok=True)
    (folder / "t.proto").write_text(text)
    return check_wire.facts(check_wire.compile_set(folder))


def test_additions_are_free(tmp_path: Path) -> None:
    old = facts_of(tmp_path, BASE)
    new = facts_of(tmp_path, BASE.replace("message A { uint64 n = 1; }", "message A { uint64 n = 1; bytes more = 2; }"))
    assert check_wire.broken(old, old) == []
    assert check_wire.broken(old, new) == []


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("string text = 1;", "bytes text = 1;"),
        ("string text = 1;", "string text = 3;"),
        ("string text = 1;", "repeated string text = 1;"),
        ("string text = 1;", ""),
        ("string text = 1;", "string prose = 1;"),
        ("string text = 1; Kind kind = 2;", "oneof either { string text = 1; Kind kind = 2; }"),
        ("KIND_ONE = 1", "KIND_TWO = 1"),
        ("returns (stream A)", "returns (A)"),
        ("rpc Ask(Q)", "rpc Tell(Q)"),
    ],
)
def test_what_an_older_program_would_misread_is_refused(tmp_path: Path, was: str, now: str) -> None:
    old = facts_of(tmp_path, BASE)
    assert check_wire.broken(old, facts_of(tmp_path, BASE.replace(was, now)))
