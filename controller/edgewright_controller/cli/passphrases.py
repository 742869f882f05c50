"""Passphrases at the command line: from a file, for scripts, or typed without being shown."""

from __future__ import annotations

from pathlib import Path

import typer

from edgewright_controller.cli.ending import BAD_INPUT, Ending


def of_file(file: Path) -> str:
    """The passphrase in a file, without the end of its line. Raises Ending when it is no text, OSError."""
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise Ending(f"{file}: a passphrase is text in UTF-8", BAD_INPUT) from error


def typed(prompt: str, *, twice: bool = False) -> str:
    """What somebody types, hidden; `twice`: typed again, for a new one."""
    asked: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=twice)
    return asked
