"""Artifacts at rest, hashed again: which file is not what was verified when it came, and which of its blocks.

Only reads, and needs nobody's leave for it: an agent may run meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import digest, plain_file
from edgewright_contract.block_index import Block
from edgewright_contract.bundle import BundleFile

# Of the time that nobody else wants: reading a model takes minutes instead of seconds, once in a while.
SHARE: Final = 0.1
_SHOWN_BLOCKS: Final = 8

Checkpoint = Callable[[], None]


@dataclass(frozen=True)
class Finding:
    """One file of an artifact that is not as it should be, `path` empty: its list of files is not. `blocks` are the
    numbers of the bad blocks, as far as they are known."""

    artifact: str
    path: str
    what: str
    blocks: tuple[int, ...] = ()

    def __str__(self) -> str:
        place = f"artifact {self.artifact[:12]}: {self.path}: " if self.path else f"artifact {self.artifact[:12]}: "
        if not self.blocks:
            return place + self.what
        shown = ", ".join(map(str, self.blocks[:_SHOWN_BLOCKS]))
        more = f" and {len(self.blocks) - _SHOWN_BLOCKS} more" if len(self.blocks) > _SHOWN_BLOCKS else ""
        return f"{place}block {shown}{more}: {self.what}"


def inspect(slots: Slots, name: str, checkpoint: Checkpoint = lambda: None) -> list[Finding]:
    """What is wrong with this artifact. `checkpoint` is called before each MiB, and may raise to end it.

    An artifact that is taken away meanwhile has nothing wrong with it. Raises OSError other than what bad disks say.
    """
    try:
        files = slots.bundle(name).files
    except ArtifactDamaged as error:
        return [Finding(name, "", str(error))] if slots.artifact(name).is_dir() else []
    folder = slots.artifact(name)
    found = []
    for file in files:
        what = _wrong(folder, file, checkpoint)
        if not what and not slots.is_ours(folder / file.path):
            what = "has another name outside of the artifacts, to be changed by"
        if what:
            found.append(Finding(name, file.path, what, _bad_blocks(slots, name, file, checkpoint)))
    listed = {file.path for file in files}
    for place, folders, leaves in os.walk(folder):
        links = [one for one in folders if Path(place, one).is_symlink()]
        for path in [Path(place, leaf).relative_to(folder).as_posix() for leaf in leaves + links]:
            if path not in listed:
                found.append(Finding(name, path, "does not belong to the artifact"))
    return found if folder.is_dir() else []


def _wrong(folder: Path, file: BundleFile, checkpoint: Checkpoint) -> str:
    """What is wrong with a file, empty: nothing."""
    try:
        with plain_file.read_below(folder, file.path) as opened:
            whole = digest.of_open(opened, checkpoint)
            if hasattr(os, "posix_fadvise"):  # what was read for this only is not to push out what others read
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except FileNotFoundError:
        return "missing"
    except plain_file.NotPlain as error:
        return str(error.strerror)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return f"cannot be read: {error.strerror}"
    return "" if whole == file.sha256 else "changed since it was verified"


def _bad_blocks(slots: Slots, name: str, file: BundleFile, checkpoint: Checkpoint) -> tuple[int, ...]:
    """Of a file that is wrong; none where its index is not known, or its file cannot be opened."""
    index = slots.index(name)
    blocks: Sequence[Block] = [block for block in index.blocks if block.path == file.path] if index is not None else ()
    bad = []
    try:
        with plain_file.read_below(slots.artifact(name), file.path) as opened:
            for block in blocks:
                checkpoint()
                try:
                    opened.seek(block.offset)
                    data = opened.read(block.size)
                except OSError:
                    data = b""
                if hashlib.sha256(data).digest() != block.sha256:
                    bad.append(block.index)
    except OSError:
        return ()
    return tuple(bad)


class Paced:
    """A checkpoint for what has time: it lets the rest of the device work for most of it. Raises Cancelled."""

    def __init__(self, cancellation: Cancellation, share: float = SHARE) -> None:
        """`share` of the time is worked, the rest slept through."""
        self._cancellation, self._rest = cancellation, 1 / share - 1
        self._since = time.monotonic()

    def __call__(self) -> None:
        """Sleep in proportion to what passed since the last call."""
        worked = time.monotonic() - self._since
        self._cancellation.wait(min(worked * self._rest, 1.0))
        self._since = time.monotonic()
