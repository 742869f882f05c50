"""From TOML text to a manifest in which every name means something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import tomli
from pydantic import ValidationError

from edgewright_controller.manifest.assignment import Fault
from edgewright_controller.manifest.errors import ManifestError, Problem, dotted
from edgewright_controller.manifest.faults import as_written, faults_of
from edgewright_controller.manifest.lines import key_at, line_of
from edgewright_controller.manifest.schema import Manifest

MAX_BYTES: Final = 4 << 20
MAX_PROBLEMS: Final = 50
NONE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({})


def parse(text: str, *, file: str, labels: Mapping[str, Mapping[str, str]] | None = NONE) -> Manifest:
    """The manifest in `text`; `file` is its name for messages. `labels` are what its devices have besides, by device;
    None when nobody here knows: what they might settle is not refused. Raises ManifestError with every problem found.

    Sources are left as they are written; see `Manifest.resolve`.
    """
    document = _toml(text, file)
    try:
        manifest = Manifest.model_validate(document).with_labels(labels or {})
    except ValidationError as error:
        raise _refused(faults_of(error.errors(include_url=False)), document, text, file) from None
    faults = [fault for fault in manifest.faults() if labels is not None or not fault.for_want_of_labels]
    if faults:
        raise _refused(faults, document, text, file)
    return manifest


def load(path: Path) -> Manifest:
    """The manifest in a file, with its sources resolved from the file's folder. Raises ManifestError."""
    return parse(read_text(path), file=str(path)).resolve(path.absolute().parent)


def read_text(path: Path) -> str:
    """A manifest's text. Raises ManifestError when there is no such file, or it cannot be a manifest."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ManifestError([Problem(str(path), "", _TOO_LARGE)])
        return data.decode()
    except OSError as error:
        raise ManifestError([Problem(str(path), "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ManifestError([Problem(str(path), "", f"is not UTF-8 text (byte {error.start:,})")]) from error


_TOO_LARGE: Final = f"is larger than {MAX_BYTES:,} bytes; that is no manifest"


def _toml(text: str, file: str) -> dict[str, Any]:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ManifestError([Problem(file, "", _TOO_LARGE)])
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ManifestError([_syntax(error, file)]) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested without end
        raise ManifestError([Problem(file, "", f"is not TOML that can be read: {str(error)[:200]}")]) from None


def _syntax(error: tomli.TOMLDecodeError, file: str) -> Problem:
    said, line, column = error.msg, error.lineno, error.colno
    if said.startswith(("Cannot overwrite", "Duplicate", "Cannot declare")):
        return Problem(file, dotted(key_at(error.doc, line)), "stands in the file twice; remove or rename one", line)
    return Problem(file, "", f"is not TOML: {said[0].lower()}{said[1:]}, column {column}", line)


def _refused(faults: Sequence[Fault], document: Mapping[str, Any], text: str, file: str) -> ManifestError:
    # Finding a line reads the whole text once for each problem, hence the bound.
    at = [(as_written(fault.path, document), fault.message) for fault in faults[:MAX_PROBLEMS]]
    problems = [Problem(file, dotted(path), message, line_of(text, path)) for path, message in at]
    if len(faults) > MAX_PROBLEMS:
        problems.append(Problem(file, "", f"has {len(faults) - MAX_PROBLEMS} further problems"))
    return ManifestError(problems)
