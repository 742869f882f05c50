"""Draw the picture of the live view in the README, from a real `apply` against a running fleet.

usage: python tools/picture.py CLIENT_TOML MANIFEST OUT.svg

Follows the change as `edgewright demo` does, and keeps the view in which most is going on.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

from rich.console import Console

from edgewright_controller.client import Fleet, read_access
from edgewright_controller.demo.screen import Progress


def activity(progress: Progress) -> int:
    """How much there is to see: builds and devices that are neither at their start nor at their end."""
    moving = sum(0 < device.status.done_bytes < device.status.total_bytes for device in progress.devices.values())
    updating = len({device.status.step for device in progress.devices.values() if device.state == "updating"})
    return 2 * moving + updating


def main() -> int:
    client, manifest, out = map(Path, sys.argv[1:])
    best = progress = Progress()
    with Fleet(read_access(client)) as fleet:
        folder = str(manifest.parent.absolute())
        for event in fleet.apply(manifest.read_text(encoding="utf-8"), manifest.name, folder, again=True):
            progress.take(event)
            if activity(progress) >= activity(best):
                best = copy.deepcopy(progress)
    console = Console(record=True, width=100, force_terminal=True)
    console.print(f"$ edgewright apply {manifest}")
    console.print(best)
    console.save_svg(str(out), title="edgewright")
    return 0


if __name__ == "__main__":
    sys.exit(main())
