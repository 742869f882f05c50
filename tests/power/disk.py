"""A disk that loses its power: what a record of acts may have left of a folder, by how much had reached the disk.

The rules are those that POSIX gives, and no file system is worse: what was written to a file is there for certain only
after the file was synced, and a name that was made, moved or removed only after its folder was. Until then each of
these may have happened or not, on its own: names without their data, data without their names, writes in another order
or torn between sectors. One thing is taken for granted, as every journal of a file system gives it: a rename is one
change, also from one folder to another, and changes of the same name in the same folder keep their order.

Bytes that a write through a mapping made are not in a record. Only SQLite's index of its log (`-shm`) is written so,
and it means nothing after a crash.
"""

from __future__ import annotations

import enum
import os
import random
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.power.recording import Act, Kind

_SECTOR: Final = 512
_CHANGES_FILES: Final = (Kind.WRITE, Kind.RESIZE, Kind.CHMOD)


class Loss(enum.Enum):
    """What became of all that was not synced."""

    NOTHING = "nothing is lost"  # as by SIGKILL
    ALL = "all that was not synced is lost"
    DATA = "names are there, and files have their sizes, but bytes that were not synced are zeros"
    EMPTY = "names are there, and what was not synced of the files is not, sizes neither"
    NAMES = "bytes are there, and names that were not synced are not"
    SOME = "each change is there, or is not, or is torn, by chance"


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    mode: int = 0o644
    unsynced: list[Act] = field(default_factory=list)


@dataclass
class _Folder:
    mode: int = 0o755


@dataclass
class _Link:
    leads: bytes


_Node = _File | _Folder | _Link


@dataclass(frozen=True)
class _Naming:
    """A change of names: (folder, name, node) that goes, and that comes."""

    gone: tuple[int, str, int] | None
    come: tuple[int, str, int] | None

    @property
    def places(self) -> set[tuple[int, str]]:
        return {place[:2] for place in (self.gone, self.come) if place is not None}


_Names = dict[int, dict[str, int]]


class Disk:
    """The folder `base` as it stands on the disk, safely; then the acts of a record are done on it one by one."""

    def __init__(self, base: Path) -> None:
        self._nodes: list[_Node] = []
        self._now: _Names = {}  # node of a folder → name → node, as a program sees it
        self._safe: _Names = {}  # the same, as far as it is synced
        self._namings: list[_Naming] = []  # that are not
        self._by_inode: dict[int, int] = {}
        self._root = self._take_in(base)
        self._safe = {folder: dict(names) for folder, names in self._now.items()}

    def do(self, act: Act) -> None:
        """One more act."""
        if act.kind in _CHANGES_FILES:
            node = self._nodes[self._by_inode[act.inode]]
            if isinstance(node, _File):
                node.unsynced.append(act)
            elif isinstance(node, _Folder):
                node.mode = act.number
        elif act.kind is Kind.SYNC:
            self._sync(self._by_inode[act.inode])
        elif act.kind is not Kind.NOTHING:
            self._name(act)

    def write(self, into: Path, loss: Loss, seed: int = 0) -> None:
        """Make the folder `into`, with what is left of it when the power is lost now."""
        chance = random.Random(f"{loss.name} {seed}")
        names = {folder: dict(entries) for folder, entries in self._safe.items()}
        if loss in (Loss.NOTHING, Loss.DATA, Loss.EMPTY):
            kept = list(range(len(self._namings)))
        elif loss is Loss.SOME:
            kept = self._with_what_they_need(n for n in range(len(self._namings)) if chance.random() < 0.5)
        else:
            kept = []
        for number in kept:
            _rename(names, self._namings[number])
        _Left(self._nodes, names, loss, chance).write(into, self._root)

    # ── Doing ──

    def _take_in(self, folder: Path) -> int:
        node = self._add(_Folder(stat.S_IMODE(folder.stat().st_mode)), folder.stat().st_ino)
        self._now[node] = {}
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            inode = entry.inode()
            if entry.is_dir(follow_symlinks=False):
                self._now[node][entry.name] = self._take_in(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                if inode not in self._by_inode:
                    path = Path(entry.path)
                    self._add(_File(bytearray(path.read_bytes()), stat.S_IMODE(path.stat().st_mode)), inode)
                self._now[node][entry.name] = self._by_inode[inode]
            else:
                raise ValueError(f"{entry.path}: neither a file nor a folder")
        return node

    def _add(self, node: _Node, inode: int) -> int:
        """A new node; an inode that another had before is this one's from now on. Nobody asks for that of a link, 0."""
        self._nodes.append(node)
        if inode:
            self._by_inode[inode] = len(self._nodes) - 1
        return len(self._nodes) - 1

    def _sync(self, number: int) -> None:
        node = self._nodes[number]
        if isinstance(node, _File):
            for act in node.unsynced:
                _change(node, act)
            node.unsynced.clear()
            return
        mine = (n for n, naming in enumerate(self._namings) if any(at == number for at, _name in naming.places))
        done = self._with_what_they_need(mine)
        for one in done:
            _rename(self._safe, self._namings[one])
        self._namings = [naming for n, naming in enumerate(self._namings) if n not in set(done)]

    def _name(self, act: Act) -> None:
        if act.kind in (Kind.CREATE, Kind.MKDIR):
            made: _File | _Folder = _File(mode=act.number) if act.kind is Kind.CREATE else _Folder(act.number)
            node = self._add(made, act.inode)
            if act.kind is Kind.MKDIR:
                self._now[node], self._safe[node] = {}, {}
            naming = _Naming(None, (*self._place(act.path), node))
        elif act.kind is Kind.SYMLINK:
            naming = _Naming(None, (*self._place(act.path), self._add(_Link(act.data), 0)))
        elif act.kind is Kind.LINK:
            folder, name = self._place(act.path)
            naming = _Naming(None, (*self._place(act.other), self._now[folder][name]))
        else:
            folder, name = self._place(act.path)
            node = self._now[folder][name]
            come = (*self._place(act.other), node) if act.kind is Kind.RENAME else None
            naming = _Naming((folder, name, node), come)
        _rename(self._now, naming)
        self._namings.append(naming)

    def _place(self, path: str) -> tuple[int, str]:
        *parents, name = path.split("/")
        folder = self._root
        for parent in parents:
            folder = self._now[folder][parent]
        return folder, name

    def _with_what_they_need(self, wanted: Iterable[int]) -> list[int]:
        """These changes of names, and those before them of the same names, in their order."""
        needed = set(wanted)
        for number in reversed(range(len(self._namings))):
            if number not in needed:
                places = self._namings[number].places
                if any(n > number and places & self._namings[n].places for n in needed):
                    needed.add(number)
        return sorted(needed)


class _Left:
    """Writes out what is left, by the names that are left."""

    def __init__(self, nodes: Sequence[_Node], names: _Names, loss: Loss, chance: random.Random) -> None:
        self._nodes, self._names, self._loss, self._chance = nodes, names, loss, chance
        self._written: dict[int, Path] = {}

    def write(self, into: Path, number: int) -> None:
        """The folder of this number."""
        into.mkdir()
        for name, node in self._names[number].items():
            path, found = into / name, self._nodes[node]
            if isinstance(found, _Folder):
                self.write(path, node)
            elif isinstance(found, _Link):
                os.symlink(found.leads, os.fsencode(path))
            elif node in self._written:
                os.link(self._written[node], path)
            else:
                left = _left(found, self._loss, self._chance)
                path.write_bytes(left.data)
                path.chmod(left.mode)
                self._written[node] = path
        folder = self._nodes[number]
        assert isinstance(folder, _Folder)
        into.chmod(folder.mode)


def _rename(names: _Names, naming: _Naming) -> None:
    if naming.gone is not None:
        folder, name, node = naming.gone
        if names[folder].get(name) == node:
            del names[folder][name]
    if naming.come is not None:
        folder, name, node = naming.come
        names[folder][name] = node


def _change(file: _File, act: Act, data: bytes | None = None) -> None:
    if act.kind is Kind.CHMOD:
        file.mode = act.number
    elif act.kind is Kind.RESIZE:
        del file.data[act.number :]
        file.data.extend(bytes(act.number - len(file.data)))
    else:
        data = act.data if data is None else data
        file.data.extend(bytes(max(act.number - len(file.data), 0)))
        file.data[act.number : act.number + len(data)] = data


def _left(file: _File, loss: Loss, chance: random.Random) -> _File:
    left = _File(bytearray(file.data), file.mode)
    whole = _File(bytearray(file.data), file.mode)
    for act in file.unsynced:
        _change(whole, act)
        if loss in (Loss.NOTHING, Loss.NAMES):
            _change(left, act)
        elif loss is Loss.SOME and (share := chance.random()) < 0.7:
            torn = act.kind is Kind.WRITE and share < 0.3
            _change(left, act, _torn(act.data, chance) if torn else None)
    if loss is Loss.DATA:
        del left.data[len(whole.data) :]
        left.data.extend(bytes(len(whole.data) - len(left.data)))
    return left


def _torn(data: bytes, chance: random.Random) -> bytes:
    """Its first sectors, and zeros for the rest or nothing."""
    kept = _SECTOR * chance.randint(0, len(data) // _SECTOR)
    return data[:kept] + bytes(chance.choice((0, len(data) - kept)))


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path → mode and bytes of everything below `folder`. To compare two of them."""
    found = {}
    for place, names, leaves in os.walk(folder):
        for name in names + leaves:
            path = Path(place, name)
            mode = path.lstat().st_mode
            data = path.read_bytes() if stat.S_ISREG(mode) else b""
            found[path.relative_to(folder).as_posix()] = (
                mode,
                os.fsencode(os.readlink(path)) if path.is_symlink() else data,
            )
    return found


def played(base: Path, acts: Sequence[Act]) -> Disk:
    """The disk after these acts."""
    disk = Disk(base)
    for act in acts:
        disk.do(act)
    return disk
