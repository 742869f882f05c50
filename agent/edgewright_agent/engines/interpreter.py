"""Where an interpreter and its packages stand on the disk, by its own account."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ASK_S: Final = 30.0
_QUESTION: Final = (
    "import json, os, sys\n"
    "print(json.dumps([sys.executable, [sys.prefix, sys.base_prefix, *filter(os.path.exists, sys.path)]]))"
)


@dataclass(frozen=True)
class Interpreter:
    """`program` is the file that runs, which a wrapper may hide; `folders` hold its library and packages."""

    program: Path
    folders: tuple[Path, ...]


_known: dict[tuple[str, int], Interpreter] = {}


def look(interpreter: str) -> Interpreter:
    """What `interpreter` says of itself; asked once. Raises OSError, ValueError, subprocess.SubprocessError."""
    key = (interpreter, Path(interpreter).stat().st_mtime_ns)
    if key not in _known:
        asked = subprocess.run(
            [interpreter, "-I", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_S,
            check=True,
        )
        program, folders = json.loads(asked.stdout)
        unique = dict.fromkeys(Path(folder).resolve() for folder in folders)
        _known[key] = Interpreter(Path(program or sys.executable), tuple(unique))
    return _known[key]
