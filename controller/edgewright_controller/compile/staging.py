"""A source as a build sees it: a folder of links to its files and nothing else."""

from __future__ import annotations

from pathlib import Path

from edgewright_controller.compile.source import Source


def link(source: Source, folder: Path) -> Path:
    """Make `folder` with a link to each of the source's files. Raises OSError."""
    folder.mkdir(parents=True)
    for file in source.files:
        (folder / file.path).symlink_to(file.place.absolute())
    return folder
