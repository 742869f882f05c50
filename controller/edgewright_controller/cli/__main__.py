"""`python -m edgewright_controller.cli`, for where the console script is not on the path."""

from edgewright_controller.cli import main

main()
