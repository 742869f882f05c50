"""Draw the picture of the live view in the README, from a real `apply` against a running fleet.

usage: python tools/picture.py CLIENT_TOML MANIFEST OUT.svg

Follows the change as `edgewright apply` does, and keeps the view in which most is going on.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

from rich.console import Console

from edgewright_controller.cli.following import View
from edgewright_controller.client import Fleet, read_access


def activity(view: View) -> int:
    """How much there is to see: states, and devices that are neither at their start nor at their end."""
    moving = sum(0 < one.status.done_bytes < one.status.total_bytes for one in view.picture.devices.values())
    return 4 * len(view.picture.counts()) + min(moving, 4)


def main() -> int:
    client, manifest, out = map(Path, sys.argv[1:])
    best = view = View()
    with Fleet(read_access(client)) as fleet:
        folder = str(manifest.parent.absolute())
        for event in fleet.apply(manifest.read_text(encoding="utf-8"), manifest.name, folder, again=True):
            view.take(event, time.monotonic())
            if activity(view) >= activity(best):
                best = copy.deepcopy(view)
    console = Console(record=True, width=100, height=30, force_terminal=True)
    console.print(f"$ edgewright apply {manifest}")
    console.print(best)
    console.save_svg(str(out), title="edgewright")
    return 0


if __name__ == "__main__":
    sys.exit(main())
