"""The director: which device gets what, signed for one device at a time, on demand.

Timestamp, snapshot and targets of one device share one version number, which the caller raises. They are small
(about 2 kB), signed with one online key, and good for three days; the ledger keeps the newest of each device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp

from edgewright_contract import canonical, digest, names
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from edgewright_controller.publish import metadata
from edgewright_controller.publish.roots import Roots

LIFE: Final = timedelta(days=3)
_ROLES: Final = ("timestamp", "snapshot", "targets")
# What an agent accepts of a director's targets.
MAX_TARGETS_BYTES: Final = 256 << 10


class DirectorError(ValueError):
    """This cannot be signed for a device; the text says why."""


@dataclass(frozen=True)
class Desired:
    """What a device should have. `release` None: nothing; then `target` is None too."""

    generation: int
    release: Release | None = None
    target: ImageTarget | None = None

    @property
    def digest(self) -> str:
        """Names everything that is signed of this, so that a change of inputs shows."""
        release = self.release.to_json() if self.release else None
        target = {"path": self.target.path, "length": self.target.bundle_length} if self.target else None
        return digest.of_bytes(canonical.encode([self.generation, release, target]))


@dataclass(frozen=True)
class DirectorMetadata:
    """The signed files of one device. `inputs` names what they say and the key that signed it."""

    timestamp: bytes
    snapshot: bytes
    targets: bytes
    version: int
    expires: datetime
    inputs: str


def ageing(expires: datetime, now: datetime) -> bool:
    """Whether half of the life of a device's metadata is gone."""
    return metadata.half_gone(expires, LIFE, now)


class Director:
    """Signs for devices. `open` makes one; safe to use from several threads."""

    def __init__(self, fleet: str, roots: Roots):
        self._fleet, self.roots = fleet, roots

    @classmethod
    def open(cls, folder: Path, keys_folder: Path, fleet: str, now: datetime) -> Director:
        """The director whose roots are in `folder`, made when absent.

        Raises PublishError when a key or a root is lost or damaged, OSError.
        """
        online = keys_folder / "director-online.pem"
        files = {Root.type: keys_folder / "director-root.pem", **dict.fromkeys(_ROLES, online)}
        return cls(fleet, Roots.open(folder, files, now))

    @property
    def first_root(self) -> bytes:
        """Version 1 of the root, which devices get when they enrol."""
        return self.roots.first

    def refresh(self, now: datetime) -> None:
        """Renew the root when half of its life is gone. Raises OSError."""
        self.roots.refresh(now)

    def needs_new(self, current: DirectorMetadata | None, desired: Desired, now: datetime) -> bool:
        """Whether to sign anew: nothing was signed, something else or by another key, or half of its life is gone."""
        return current is None or current.inputs != self._inputs(desired) or ageing(current.expires, now)

    def _inputs(self, desired: Desired) -> str:
        """Names what is signed and the key that signs it, so that a new key shows as a change of inputs does."""
        return digest.of_bytes(canonical.encode([desired.digest, self._online.public_key.keyid]))

    @property
    def _online(self) -> CryptoSigner:
        signer = self.roots.signer("targets")
        if signer is None:
            raise DirectorError("the director's own key is not online; it signs on demand, so holders cannot have it")
        return signer

    def sign(self, device: str, desired: Desired, version: int, now: datetime) -> DirectorMetadata:
        """What `device` should have, as a check-in's answer carries it. About a millisecond.

        `version` is above every one that the device holds. Raises DirectorError when `desired` contradicts itself
        or is too large for a device.
        """
        _check(device, desired, version)
        expires = metadata.end(now, LIFE)
        said = {"device_id": device, "fleet": self._fleet, "generation": desired.generation}
        signed = Targets(version, expires=expires, targets=_files(desired), unrecognized_fields=said)
        targets = metadata.sign(signed, self._online)
        if len(targets.data) > MAX_TARGETS_BYTES:
            raise DirectorError(
                f"{device}: the release makes {len(targets.data)} bytes of metadata, and a device accepts at most"
                f" {MAX_TARGETS_BYTES}; shorten its probes"
            )
        snapshot = metadata.sign(Snapshot(version, expires=expires, meta={"targets.json": targets.meta}), self._online)
        timestamp = metadata.sign(Timestamp(version, expires=expires, snapshot_meta=snapshot.meta), self._online)
        return DirectorMetadata(timestamp.data, snapshot.data, targets.data, version, expires, self._inputs(desired))

    def has_all(self, version: int, held: Mapping[str, int]) -> bool:
        """Whether a device that holds these versions lacks nothing of its metadata of `version`."""
        return all(held.get(role) == version for role in _ROLES) and not self.roots.above(held.get("root", 1))

    def files(self, current: DirectorMetadata, held: Mapping[str, int]) -> list[tuple[str, bytes]]:
        """(name, content) of what a device lacks that holds these versions, role → version, 0 or absent for none."""
        files = {
            "timestamp": ("timestamp.json", current.timestamp),
            "snapshot": (f"{current.version}.snapshot.json", current.snapshot),
            "targets": (f"{current.version}.targets.json", current.targets),
        }
        lacking = [file for role, file in files.items() if held.get(role, 0) != current.version]
        return self.roots.above(held.get("root", 1)) + lacking


def _check(device: str, desired: Desired, version: int) -> None:
    if not names.is_id(device):
        raise DirectorError(f"{device!r} is not a device id")
    if version < 1 or desired.generation < 0:
        raise DirectorError(f"{device}: version {version} or generation {desired.generation} is out of range")
    release, target = desired.release, desired.target
    if (release is None) != (target is None):
        raise DirectorError(f"{device}: a release needs its target, and a target its release")
    if release is None or target is None:
        return
    if (release.artifact, release.hw_class) != (target.bundle, target.hw_class) or target.kind != "model":
        raise DirectorError(
            f"{device}: the release wants artifact {release.artifact[:12]} for {release.hw_class},"
            f" the target is {target.kind} {target.bundle[:12]} for {target.hw_class}"
        )


def _files(desired: Desired) -> dict[str, TargetFile]:
    if desired.release is None or desired.target is None:
        return {}
    custom: dict[str, Any] = {"hw_class": desired.target.hw_class, "release": desired.release.to_json()}
    return {desired.target.path: metadata.target_file(desired.target, custom)}
