"""Delivery, measured: section [delivery] of the figures, one part after the other, each a process of its own.

usage: python benchmarks/delivery.py [--only bytes crash …]

bytes: what updates cost on the line (delivery_bytes.py); pull: downloads under load, and what they cost beside nginx
(delivery_pull.py); crash: updates that are cut off, full disks, damage (delivery_crash.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PARTS: Final = {part.stem.removeprefix("delivery_"): part for part in sorted(HERE.glob("delivery_*.py"))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit status is that of the first that failed."""
    parser = argparse.ArgumentParser(description="Measures delivery; prints one JSON line for each figure.")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    wanted = parser.parse_args(arguments).only
    ended = [subprocess.run([sys.executable, str(PARTS[part])], check=False).returncode for part in wanted]
    return next((status for status in ended if status), 0)


if __name__ == "__main__":
    sys.exit(main())
