"""Delivery, measured: section [delivery] of the figures, one part after the other, each a process of its own.

usage: python benchmarks/delivery.py [--only bytes crash …]

bytes: what updates cost on the line (delivery_bytes.py); pull: downloads under load, and what they cost beside nginx
(delivery_pull.py); crash: updates that are cut off, full disks, damage (delivery_crash.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sections

if __name__ == "__main__":
    sys.exit(sections.run("delivery", "Measures delivery; prints one JSON line for each figure."))
