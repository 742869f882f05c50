"""The user that engines run as when the agent is root: it owns nothing, and reads one artifact.

A system user named `edgewright-engine`, or whoever `engines.user` names, is taken where there is one. Otherwise a
number that belongs to nobody, as systemd does it for dynamic users.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAME: Final = "edgewright-engine"
_FIRST, _COUNT = 61184, 4336  # systemd's range for users that exist only while they are used
_ACCELERATOR_GROUPS: Final = ("video", "render")


class NoSuchUser(Exception):
    """The configured user is not one that an engine may be."""


@dataclass(frozen=True)
class User:
    """Numbers only; a dynamic one has no name."""

    uid: int
    gid: int


def choose(name: str, state: Path) -> User:
    """The user `name`; with an empty name the usual one, or a free number that depends on the state folder, so that
    two agents have two. Raises NoSuchUser."""
    import pwd

    try:
        entry = pwd.getpwnam(name or NAME)
    except KeyError:
        if name:
            raise NoSuchUser(f"engines.user: this system has no user {name!r}") from None
    else:
        if entry.pw_uid == 0:
            raise NoSuchUser(f"engines.user: {name!r} is root, which an engine must not be")
        return User(entry.pw_uid, entry.pw_gid)
    import grp

    taken = {one.pw_uid for one in pwd.getpwall()} | {one.gr_gid for one in grp.getgrall()}
    start = int.from_bytes(hashlib.sha256(str(state).encode()).digest()[:4], "big")
    for step in range(_COUNT):
        number = _FIRST + (start + step) % _COUNT
        if number not in taken:
            return User(number, number)
    raise NoSuchUser(f"no user number from {_FIRST} to {_FIRST + _COUNT - 1} is free; make a user {NAME}")


def accelerator_groups(devices: Iterable[Path]) -> tuple[int, ...]:
    """The groups whose members may use these devices, root's own left out."""
    import grp

    found = {device.stat().st_gid for device in devices}
    for name in _ACCELERATOR_GROUPS:
        try:
            found.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    return tuple(sorted(found - {0}))


def open_artifact(state: Path, artifact: Path, gid: int) -> None:
    """Let the group read this artifact, and pass through the folders above it; close the rest of the state folder to
    all but its owner. An artifact elsewhere is left as it is. Raises OSError."""
    if state not in artifact.parents:
        return
    above = [folder for folder in (artifact, *artifact.parents) if state in folder.parents][1:]
    for entry in state.iterdir():
        if entry not in above and not entry.is_symlink():
            _set(entry, _mode(entry) & ~0o077)
    for folder in (state, *above):
        _give(folder, gid, 0o010, kept=0o700)
    for place, _, files in os.walk(artifact):
        _give(Path(place), gid, 0o050)
        for name in files:
            _give(Path(place, name), gid, 0o040)


def _give(path: Path, gid: int, bits: int, kept: int = 0o770) -> None:
    """These bits to the group, nothing to others. `kept`: which of its bits a path may keep."""
    if path.is_symlink():
        return
    if path.stat().st_gid != gid:
        os.chown(path, -1, gid)
    _set(path, (_mode(path) & kept) | bits)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _set(path: Path, mode: int) -> None:
    if _mode(path) != mode:
        path.chmod(mode)
