"""What a process did to the files below one folder, act by act, as recorder.c writes it down."""

from __future__ import annotations

import atexit
import enum
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("recorder.c")
_HEAD: Final = struct.Struct("<BQqHHI")


class Kind(enum.IntEnum):
    """As in recorder.c."""

    NOTHING = 0  # it failed
    CREATE = 1
    WRITE = 2
    RESIZE = 3
    SYNC = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    CHMOD = 10
    SYMLINK = 11


@dataclass(frozen=True)
class Act:
    """One act. `path` and `other` are relative to the folder; `inode` is of what is made or changed.

    `number`: the offset of a write, the size of a resize, the mode of what is made or whose mode is set. `data`: what
    is written; of a symbolic link, where it leads.
    """

    kind: Kind
    inode: int
    number: int
    path: str
    other: str
    data: bytes

    def __str__(self) -> str:
        where = " ".join(filter(None, (self.path, self.other))) or f"inode {self.inode}"
        return f"{self.kind.name.lower()} {where}" + (f" {len(self.data)} bytes" if self.data else "")


def environment(folder: Path, record: Path, crash_at: int | None = None) -> dict[str, str]:
    """What a process needs in its environment to be recorded into `record`; and to end before act `crash_at`."""
    told = {"LD_PRELOAD": str(recorder()), "POWER_FOLDER": str(folder.resolve()), "POWER_RECORD": str(record)}
    return {**os.environ, **told, **({} if crash_at is None else {"POWER_CRASH": str(crash_at)})}


@functools.cache
def recorder() -> Path:
    """The compiled recorder. Raises RuntimeError where there is no C compiler, CalledProcessError."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError(f"{SOURCE.name} has to be compiled, and there is no cc here: install gcc or clang")
    folder = tempfile.mkdtemp(prefix="edgewright-power-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Path(folder) / "recorder.so"
    options = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread")
    subprocess.run([compiler, *options, "-o", str(made), str(SOURCE), "-ldl"], check=True)
    return made


def read(record: Path, folder: Path) -> list[Act]:
    """The acts in `record`, which were those below `folder`. One that was being written down does not count."""
    data, acts, at = record.read_bytes(), list[Act](), 0
    root = str(folder.resolve())
    while at + _HEAD.size <= len(data):
        kind, inode, number, *lengths = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + sum(lengths) > len(data):
            break
        pieces = []
        for length in lengths:
            pieces.append(data[at : at + length])
            at += length
        path, other = (os.path.relpath(piece.decode(), root) if piece else "" for piece in pieces[:2])
        acts.append(Act(Kind(kind), inode, number, path, other, pieces[2]))
    return acts


def points(acts: list[Act]) -> Mapping[str, int]:
    """How many acts there are of each kind, for a person."""
    counted: dict[str, int] = {}
    for act in acts:
        counted[act.kind.name.lower()] = counted.get(act.kind.name.lower(), 0) + 1
    return counted
