"""The sandbox of an engine on macOS, as a profile for `sandbox-exec`. Pure. Unproven: no Mac was at hand.

The tool is called deprecated and is what the system's own services use. The profile allows what it does not name,
because nobody documents what Metal needs; it takes away the network, the agent's state and all writing elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PROGRAM: Final = "/usr/bin/sandbox-exec"


def profile(*, state: Path | None, artifact: Path, temporary: Path, home: Path | None) -> str:
    """The last rule that matches decides, so what is given back comes after what is taken away."""
    lines = [
        "(version 1)",
        "(allow default)",
        "(deny network-outbound)",
        "(deny network-inbound)",
        '(allow network-bind network-inbound (local ip "localhost:*"))',
        '(allow network-outbound (remote ip "localhost:*"))',  # llama.cpp's server is asked by its own process
        "(deny signal (target others))",
        '(deny file-write* (subpath "/"))',
        f"(allow file-write* (subpath {_quoted(temporary)}))",
        '(allow file-write* (literal "/dev/null") (literal "/dev/zero") (subpath "/dev/fd"))',
    ]
    if home is not None:
        lines.append(f"(deny file-read-data (subpath {_quoted(home / 'Library' / 'Keychains')}))")
        lines.append(f"(deny file-read-data (subpath {_quoted(home / '.ssh')}))")
    if state is not None:
        lines.append(f"(deny file-read-data (subpath {_quoted(state)}))")
    lines.append(f"(allow file-read-data (subpath {_quoted(artifact)}))")
    return "\n".join(lines)


def command(text: str, child: list[str]) -> list[str]:
    """The child's command line under this profile."""
    return [PROGRAM, "-p", text, *child]


def _quoted(path: Path) -> str:
    """Raises ValueError for a name that no profile can hold."""
    text = str(path)
    if any(ord(letter) < 32 for letter in text):
        raise ValueError(f"{text!r} cannot stand in a sandbox profile")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
