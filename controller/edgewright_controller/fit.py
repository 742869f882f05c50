"""Whether a release fits a device: memory while it serves and while it replaces another, and disk. Pure, in bytes.

What serving takes is predicted by device_memory.py. A device measures again before it loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from edgewright_controller import device_memory
from edgewright_controller.manifest import Profile
from edgewright_controller.world import InventoryFact

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts


class What(Enum):
    """What there is too little of."""

    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True)
class Misfit:
    """A release that a device has no room for."""

    device: str
    what: What
    needed_bytes: int
    available_bytes: int
    message: str


@dataclass(frozen=True)
class Load:
    """What a release weighs on a device. `known` is false for an artifact that is not built yet."""

    memory_bytes: int
    artifact_bytes: int
    known: bool = True


def memory_bytes(
    profile: Profile, artifact_bytes: int, model: ModelFacts | None, types: Mapping[str, int] | None = None
) -> int:
    """Bytes of memory to serve an artifact of this size with the profile's options; see device_memory.predict."""
    return device_memory.predict(profile, artifact_bytes, model, types).total


def misfits(
    device: str, profile: Profile, *, granted_by: str, new: Load, old: Load | None, inventory: InventoryFact | None
) -> list[Misfit]:
    """What a device lacks to replace `old` (None: it serves nothing) by `new`, both versions there at the same time.

    The profile's numbers are the operator's promise, `granted_by` is what to call them. The device's own report
    counts too, once there is one.
    """
    found = []
    whole = _Shortage(device, granted_by, " for both versions during the swap" if old else "", new.known)
    total = new.memory_bytes + (old.memory_bytes if old else 0)
    if inventory is not None and inventory.memory_bytes < profile.memory_bytes:
        whole_memory, limit = replace(whole, owner="the device has"), inventory.memory_bytes
    else:
        whole_memory, limit = whole, profile.memory_bytes
    if total > limit:
        found.append(whole_memory.of(What.MEMORY, total, limit))
    on_disk = new.artifact_bytes + (old.artifact_bytes if old else 0)
    if profile.disk_bytes is not None and on_disk > profile.disk_bytes:
        found.append(whole.of(What.DISK, on_disk, profile.disk_bytes))
    elif inventory is not None and new.artifact_bytes > inventory.disk_free_bytes:
        # What it holds already is not free any more, so only the new version counts.
        free = replace(whole, owner="the device has free", purpose="")
        found.append(free.of(What.DISK, new.artifact_bytes, inventory.disk_free_bytes))
    return found


@dataclass(frozen=True)
class _Shortage:
    device: str
    owner: str
    purpose: str
    known: bool

    def of(self, what: What, needed: int, available: int) -> Misfit:
        about = "" if self.known else "about "
        message = (
            f"{self.device}: {what.value}: needs {about}{needed - available:,} bytes more:"
            f" {needed:,}{self.purpose}, {self.owner} {available:,}"
        )
        return Misfit(self.device, what, needed, available, message)
