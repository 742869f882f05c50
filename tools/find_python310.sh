#!/bin/sh
# Print a Python 3.10 that runs, or nothing. pyenv's shims exist for versions that are not chosen, so each is tried.
for candidate in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; then
        echo "$candidate"
        exit 0
    fi
done
