"""A section of the figures, measured: its parts one after the other, each a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent


def run(section: str, description: str, arguments: Sequence[str] | None = None) -> int:
    """Run the files `<section>_<part>.py` beside this one, all or those after --only; the exit status is that of the
    first that failed."""
    parts = {part.stem.removeprefix(f"{section}_"): part for part in sorted(HERE.glob(f"{section}_*.py"))}
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", nargs="+", choices=sorted(parts), default=sorted(parts))
    wanted = parser.parse_args(arguments).only
    ended = [subprocess.run([sys.executable, str(parts[part])], check=False).returncode for part in wanted]
    return next((status for status in ended if status), 0)
