"""Reading the manifest that a command names, and checking it here, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from edgewright_contract import small_file
from edgewright_controller.cli.ending import BAD_INPUT, Ending

MAX_BYTES: Final = 4 << 20

ManifestArgument = Annotated[Path, typer.Argument(help="the manifest, for example manifests/demo.toml")]


@dataclass(frozen=True)
class ManifestFile:
    """What the controller is sent: the text, the name for messages, the folder where relative sources start."""

    text: str
    file: str
    folder: str


def read(path: Path) -> ManifestFile:
    """The manifest at `path`. Ends the command with one line for each problem."""
    from edgewright_controller.manifest import ManifestError, parse

    try:
        text = small_file.read_text(path, MAX_BYTES)
    except OSError as error:
        raise Ending(f"{path}: {error.strerror}", BAD_INPUT) from error
    except small_file.TooLarge as error:
        raise Ending(f"{path}: {error}; that is no manifest", BAD_INPUT) from error
    except UnicodeDecodeError as error:
        raise Ending(f"{path}: not UTF-8 text: {error}", BAD_INPUT) from error
    try:
        parse(text, file=str(path), labels=None)  # only the controller knows what `devices label` gave
    except ManifestError as error:
        raise Ending(str(error), BAD_INPUT) from error
    return ManifestFile(text, str(path), str(path.absolute().parent))
