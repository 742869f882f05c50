"""Where a mandate is handed to the agent: STATE/mandates, which whoever may write the state folder may write.

    NAME.mandate    the mandate; whoever puts it there renames it into place, so it is whole
    NAME.content    optional, put there before it: the path of a folder with the artifact (content.py)
    NAME.answer     the agent's word: JSON, {"generation": 7, "release": "…", "held": false} or {"refused": "why"}
    content         the path that came with the mandate that was accepted last

A folder of files, because it needs nothing to be up: what is put there while the agent is stopped, it finds at
its start.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgewright_contract import digest, durable
from edgewright_contract.mandate import MAX_FILE_BYTES

FOLDER: Final = "mandates"
_MANDATE, _CONTENT, _ANSWER = ".mandate", ".content", ".answer"
_MAX_PATH_BYTES: Final = 8 << 10
_MAX_ANSWER_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Handed:
    """A mandate that waits in the folder. `content` None: it came without."""

    path: Path
    document: bytes
    content: Path | None


class MandateFolder:
    """The folder of one agent's state. Both sides use it; nothing in it needs a lock."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def make(self) -> None:
        """Make the folder, and forget answers that nobody fetched. Raises OSError."""
        durable.make_folder(self._folder, mode=0o700)
        for left in self._folder.glob(f"*{_ANSWER}"):
            durable.unlink(left)

    def hand(self, document: bytes, content: Path | None) -> str:
        """Put a mandate there; the name under which `answer` will find the agent's word. Raises OSError."""
        durable.make_folder(self._folder, mode=0o700)
        name = digest.of_bytes(document)
        durable.unlink(self._folder / f"{name}{_ANSWER}")
        if content is None:
            durable.unlink(self._folder / f"{name}{_CONTENT}")
        else:
            durable.write(self._folder / f"{name}{_CONTENT}", os.fsencode(content))
        durable.write(self._folder / f"{name}{_MANDATE}", document)
        return name

    def take_back(self, name: str) -> None:
        """Nobody took it; nobody shall. Raises OSError."""
        for kind in (_MANDATE, _CONTENT, _ANSWER):
            durable.unlink(self._folder / f"{name}{kind}")

    def waiting(self) -> list[Handed]:
        """What lies there, by name. What is too large to be a mandate is cut, and so refused. Raises OSError."""
        return [
            Handed(path, _start_of(path, MAX_FILE_BYTES + 1), _path_in(path.with_suffix(_CONTENT)))
            for path in sorted(self._folder.glob(f"*{_MANDATE}"))
            if not path.name.startswith(".") and path.is_file()
        ]

    def keep_content(self, content: Path | None) -> None:
        """Remember this path over restarts, None: none. Raises OSError."""
        if content is None:
            durable.unlink(self._folder / "content")
        elif content != self.content():
            durable.write(self._folder / "content", os.fsencode(content))

    def content(self) -> Path | None:
        """The path that came with the mandate that was accepted last, if one did. Raises OSError."""
        return _path_in(self._folder / "content")

    def done(self, handed: Handed, word: dict[str, Any]) -> None:
        """Answer, then take the mandate away; interrupted in between, it is gone through again. Raises OSError."""
        durable.write(handed.path.with_suffix(_ANSWER), json.dumps(word).encode())
        durable.unlink(handed.path.with_suffix(_CONTENT))
        durable.unlink(handed.path)

    def answer(self, name: str) -> dict[str, Any] | None:
        """The agent's word on the mandate of this name, and forget it; None: not yet. Raises OSError."""
        path = self._folder / f"{name}{_ANSWER}"
        try:
            word = json.loads(_start_of(path, _MAX_ANSWER_BYTES))
        except FileNotFoundError:
            return None
        durable.unlink(path)
        return dict(word)


def _path_in(path: Path) -> Path | None:
    try:
        text = _start_of(path, _MAX_PATH_BYTES)
    except FileNotFoundError:
        return None
    return Path(os.fsdecode(text)) if text else None


def _start_of(path: Path, most: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(most)
