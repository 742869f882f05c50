"""The offline mandate: what one device, or every device of one profile, should have, signed for months.

It is TUF targets metadata of the image repository's delegated role `mandate`. Beside what TUF defines, it says:

    fleet          the fleet's name
    device_id      the one device that it is for, or
    profile        the profile whose devices it is for; exactly one of the two
    generation     as a director's
    issued         when it was made, UTC, "2026-11-25T06:30:18Z"
    image          {"targets": {version, length, sha256}, "builder": {…}}: the image repository as it was then

Its one target is as a director's: path, length and sha256 of the bundle, custom hw_class and release. It travels in one
file together with the documents that it is checked by (`mandate.proto`); bounds hold before anything is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from google.protobuf.message import DecodeError

from edgewright_contract import digest, names
from edgewright_contract.targets import BUILDER
from edgewright_contract.v1 import mandate_pb2

FORMAT: Final = 1
ROLE: Final = "mandate"
# No artifact stands there: by TUF's own rule, whoever has the role's keys lists none.
PATHS: Final = ("mandates/*",)
PINNED: Final = ("targets", BUILDER)
MAX_LIFE: Final = timedelta(days=180)
# How much later than MAX_LIFE from now a device lets a mandate end: its clock may be behind the signer's.
CLOCK_SLACK: Final = timedelta(days=1)
MAX_GENERATION: Final = (1 << 53) - 1

MAX_MANDATE_BYTES: Final = 256 << 10
MAX_ROOTS: Final = 256
MAX_ROOT_BYTES: Final = 64 << 10
MAX_LIST_BYTES: Final = 4 << 20
MAX_FILE_BYTES: Final = 8 << 20

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


class MandateError(ValueError):
    """This is no mandate of this format. The text says why."""


@dataclass(frozen=True)
class Papers:
    """A mandate with the documents that it is checked by, each as it was signed. `roots`: from version 1 on."""

    mandate: bytes
    roots: tuple[bytes, ...]
    targets: bytes
    builder: bytes

    def encode(self) -> bytes:
        """The file. Raises MandateError when it would be one that no device reads."""
        file = mandate_pb2.MandateFile(
            format=FORMAT, mandate=self.mandate, roots=self.roots, targets=self.targets, builder=self.builder
        )
        data: bytes = file.SerializeToString(deterministic=True)
        parse(data)
        return data


@dataclass(frozen=True)
class Pinned:
    """One document as it was when the mandate was made."""

    version: int
    length: int
    sha256: str


@dataclass(frozen=True)
class Mandate:
    """What a mandate says beside its target. Exactly one of `device` and `profile` is given."""

    fleet: str
    device: str | None
    profile: str | None
    generation: int
    issued: datetime
    targets: Pinned
    builder: Pinned

    @property
    def fields(self) -> dict[str, Any]:
        """What is signed beside the fields that TUF defines. Raises MandateError when it would not be read."""
        whom = {"device_id": self.device} if self.device is not None else {"profile": self.profile}
        fields = {
            "fleet": self.fleet,
            **whom,
            "generation": self.generation,
            "issued": self.issued.strftime(_TIME),
            "image": {
                name: {"version": one.version, "length": one.length, "sha256": one.sha256}
                for name, one in zip(PINNED, (self.targets, self.builder), strict=True)
            },
        }
        read(fields)
        return fields


def parse(data: bytes) -> Papers:
    """The documents in a file. Raises MandateError."""
    if len(data) > MAX_FILE_BYTES:
        raise MandateError(f"{len(data):,} bytes; a mandate has at most {MAX_FILE_BYTES:,}")
    try:
        file = mandate_pb2.MandateFile.FromString(data)
    except DecodeError as error:
        raise MandateError(f"not a mandate: {error}") from error
    if file.format != FORMAT:
        raise MandateError(f"not a mandate, or one of format {file.format}; this version reads {FORMAT}")
    if not 1 <= len(file.roots) <= MAX_ROOTS:
        raise MandateError(f"{len(file.roots)} roots; a mandate has 1 to {MAX_ROOTS}")
    bounds = [("mandate", file.mandate, MAX_MANDATE_BYTES), ("targets", file.targets, MAX_LIST_BYTES)]
    bounds += [(BUILDER, file.builder, MAX_LIST_BYTES), *(("root", root, MAX_ROOT_BYTES) for root in file.roots)]
    for what, content, limit in bounds:
        if not 1 <= len(content) <= limit:
            raise MandateError(f"{what}: {len(content):,} bytes; it has 1 to {limit:,}")
    return Papers(file.mandate, tuple(file.roots), file.targets, file.builder)


def read(fields: Mapping[str, Any]) -> Mandate:
    """What a mandate says, from the fields that TUF does not define. Raises MandateError."""
    try:
        device, profile = fields.get("device_id"), fields.get("profile")
        if (device is None) == (profile is None):
            raise MandateError("a mandate is for a device or for a profile, and not for both")
        pinned = fields["image"]
        made = Mandate(
            fleet=_id(fields["fleet"], "fleet"),
            device=None if device is None else _id(device, "device_id"),
            profile=None if profile is None else _id(profile, "profile"),
            generation=_number(fields["generation"], "generation", MAX_GENERATION),
            issued=datetime.strptime(fields["issued"], _TIME).replace(tzinfo=timezone.utc),
            targets=_pinned(pinned["targets"], "targets"),
            builder=_pinned(pinned[BUILDER], BUILDER),
        )
    except MandateError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MandateError(f"not what a mandate says: {error!r}") from error
    return made


def _pinned(said: Any, where: str) -> Pinned:
    version = _number(said["version"], f"image.{where}.version", MAX_GENERATION)
    length = _number(said["length"], f"image.{where}.length", MAX_LIST_BYTES)
    if not digest.is_sha256(said["sha256"]):
        raise MandateError(f"image.{where}.sha256: not a sha256")
    return Pinned(version, length, said["sha256"])


def _id(value: Any, what: str) -> str:
    if not isinstance(value, str) or not names.is_id(value):
        raise MandateError(f"{what}: {str(value)[:80]!r} is not an id")
    return value


def _number(value: Any, what: str, highest: int) -> int:
    if type(value) is not int or not 1 <= value <= highest:
        raise MandateError(f"{what}: {str(value)[:80]} is not a whole number from 1 to {highest}")
    return value
