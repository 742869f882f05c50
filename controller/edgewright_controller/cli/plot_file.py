"""Whether a picture can be drawn into the file that `--plot` names, before anything is asked of the controller."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending


def check(file: Path, suffixes: Sequence[str]) -> None:
    """Raises Ending when `file` has none of two or more `suffixes`, and when there is nothing to draw with."""
    if file.suffix.lower() not in suffixes:
        raise Ending(
            f"--plot {file}: {f'{file.suffix!r} is no picture' if file.suffix else 'no suffix'}; "
            f"name a file that ends with {', '.join(suffixes[:-1])} or {suffixes[-1]}",
            BAD_INPUT,
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise Ending("--plot: matplotlib is not installed; pip install 'edgewright[plot]'", FAILED)
