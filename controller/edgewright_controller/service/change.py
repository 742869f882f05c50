"""What an operator hands in, and the two ways in which it is turned down before anything happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


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


@dataclass(frozen=True)
class Selection:
    """Those of a manifest's devices that are meant, and all of these groups; neither: every device."""

    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [*(f"device {name}" for name in self.devices), *(f"group {name}" for name in self.groups)]
        return ", ".join(parts)


ALL: Final = Selection()
