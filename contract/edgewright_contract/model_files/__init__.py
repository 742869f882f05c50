"""What a file must be before anything parses it that could be harmed: the same checks at both ends.

The controller asks before it takes an artifact in, a device before it loads one. Everything here is bounded, in time
and in memory, whatever the bytes are; nothing is executed, and no weights are read.

`rules` judges an artifact by its files. The other modules know one format each and raise FileUnsafe.
"""

from __future__ import annotations

from dataclasses import dataclass


class FileUnsafe(ValueError):
    """This file must not reach an engine. The text says why; which file it is, the caller knows."""


class ArtifactUnsafe(Exception):
    """The artifact has a file that must never reach an engine. The text names it and says why."""


@dataclass(frozen=True)
class TensorSpan:
    """Where a tensor's weights lie: its name, the position in the file of its first byte, and how many they are."""

    name: str
    offset: int
    size: int
