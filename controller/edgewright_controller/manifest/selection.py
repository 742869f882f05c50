"""Some of a manifest's devices, by their ids and their groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewright_controller.manifest.assignment import members
from edgewright_controller.manifest.errors import quoted, suggestion

if TYPE_CHECKING:
    from edgewright_controller.manifest.schema import Manifest


class SelectionError(ValueError):
    """A selection names what the manifest does not have; one line for each such name."""


def select(manifest: Manifest, devices: Sequence[str], groups: Sequence[str]) -> frozenset[str] | None:
    """These devices and those of these groups; None, for all, when neither is given. Raises SelectionError."""
    if not devices and not groups:
        return None
    faults = [
        f"there is no device {quoted(name)} in the manifest{suggestion(name, manifest.devices)}"
        for name in devices
        if name not in manifest.devices
    ]
    selected = set(devices)
    for name in groups:
        if name not in manifest.groups:
            faults.append(f"there is no group {quoted(name)} in the manifest{suggestion(name, manifest.groups)}")
            continue
        found = members(manifest, manifest.groups[name])
        if not found:
            faults.append(f"group {quoted(name)} has no device; no label of a device matches it")
        selected |= found
    if faults:
        raise SelectionError("\n".join(dict.fromkeys(faults)))
    return frozenset(selected)
