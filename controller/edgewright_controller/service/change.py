"""What an operator hands in, and the two ways in which it is turned down before anything happens."""

from __future__ import annotations

from dataclasses import dataclass


class BadInput(ValueError):
    """What was sent cannot be used: a manifest, a device id, a release. One line for each fault."""


class ChangeRefused(Exception):
    """What was sent is in order, but the fleet as it is does not allow it; the message says what would."""


@dataclass(frozen=True)
class ManifestText:
    """A manifest as an operator sends it: TOML, its name for messages, and the folder where relative sources start."""

    text: str
    file: str
    folder: str
