"""`python -m edgewright_controller.cli`: the command, where the console script is not installed."""

from __future__ import annotations

from edgewright_controller.cli import main

if __name__ == "__main__":
    main()
