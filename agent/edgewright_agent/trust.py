"""What a device believes of two signed repositories. Pure: verified values in, an assignment or a refusal out.

The image repository says what may exist, the director says what this device gets. Both are authentic when they come
here (`trust_round` checked the signatures). What is left to decide:

  * The director's word must be for this device and this fleet: another device's metadata has good signatures too.
  * Both must agree on path, length, sha256 and hardware class, and the release must be of that artifact.
  * Versions, the generation and a model's release epoch only rise. The same generation never says two things.
    A wanted rollback is a higher generation that names an older artifact.
  * An offline mandate stands in for the director's word, by the same rules. One for a profile counts where the last
    release that was signed for this device is of that profile: nothing else that a device knows of it was signed.
  * A mark belongs to a role's keys. When the role gets other keys by a signed root (or, for the builder, by signed
    targets), its mark starts anew, so that a thief who raised the version to the sky is outlived by the new keys.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_contract import mandate as mandates
from edgewright_contract import release as releases
from edgewright_contract import targets as contract
from edgewright_contract.mandate import Mandate
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget

_MODELS: Final = contract.FOLDERS["model"] + "/"
# How far the highest trusted time moves before it is worth a write to the disk.
TIME_STEP: Final = timedelta(hours=1)


class Repository(IntEnum):
    """The two repositories; the numbers are the wire's."""

    IMAGE = 1
    DIRECTOR = 2


class Reason(Enum):
    """Why signed metadata was not acted upon."""

    UNVERIFIED = "unverified"  # signatures, hashes, sizes: python-tuf refused
    INCOMPLETE = "incomplete"  # a file was neither sent nor held
    ROLLBACK = "rollback"  # a version below one that was trusted
    MALFORMED = "malformed"
    OTHER_DEVICE = "other-device"
    OTHER_FLEET = "other-fleet"
    OTHER_PROFILE = "other-profile"
    GENERATION_LOWER = "generation-lower"
    GENERATION_REUSED = "generation-reused"
    UNKNOWN_TARGET = "unknown-target"  # the image repository does not list it
    DISAGREEMENT = "disagreement"  # the two repositories, or release and target
    WRONG_HARDWARE = "wrong-hardware"
    EPOCH_LOWER = "epoch-lower"
    TOO_LONG = "too-long"  # a mandate that would be valid for longer than any may


class TrustRefused(Exception):
    """The metadata is not acted upon; what serves goes on serving. `reason` is for code, the text for people."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason = reason


class MetadataStale(Exception):
    """The metadata is authentic but too old. It blocks changes, never serving; newer metadata cures it."""


@dataclass(frozen=True)
class SignedTarget:
    """One entry of signed targets metadata, as it stands there."""

    path: str
    length: int
    hashes: Mapping[str, str]
    custom: Any


@dataclass(frozen=True)
class Statement:
    """What was signed for one device, by the director or by a mandate. The first three are unchecked."""

    device: Any
    fleet: Any
    generation: Any
    targets: tuple[SignedTarget, ...]


@dataclass(frozen=True)
class RoleMark:
    """The highest version of a role that was trusted, and which keys (a digest of their ids) spoke for it then."""

    version: int
    keys: str


Roles = Mapping[tuple[Repository, str], RoleMark]


@dataclass(frozen=True)
class Marks:
    """What only rises. `said` names what `generation` said, None when none was ever accepted.

    `epochs`: model → highest release epoch that was ever activated. `trusted_time`: no clock is believed below it.
    `profile`: of the release that `generation` named, None when it named none; the one mark that may say anything.
    """

    trusted_time: datetime
    roles: Roles = field(default_factory=dict)
    generation: int = 0
    said: str | None = None
    epochs: Mapping[str, int] = field(default_factory=dict)
    profile: str | None = None


@dataclass(frozen=True)
class Assignment:
    """What this device should have. `release` and `target` None: nothing. `held`: it failed here before."""

    generation: int
    release: Release | None = None
    target: ImageTarget | None = None
    held: bool = False

    @property
    def said(self) -> str:
        """Names the content, so that one generation cannot say two things."""
        document = [self.release.digest, self.target.path] if self.release and self.target else None
        return digest.of_bytes(canonical.encode(document))


def wanted(director: Statement) -> SignedTarget | None:
    """The one model that the director names, None when it names none. Raises TrustRefused.

    Targets of other kinds are left alone: a newer controller may name what this agent does not install.
    """
    models = [target for target in director.targets if target.path.startswith(_MODELS)]
    if len(models) > 1:
        raise TrustRefused(Reason.MALFORMED, f"the director names {len(models)} models; a device serves one")
    return models[0] if models else None


def decide(
    image: SignedTarget | None,
    director: Statement,
    *,
    device: str,
    fleet: str,
    accepted_hw_classes: Collection[str] | None,
    marks: Marks,
    holds: Collection[str],
) -> Assignment:
    """What to have now. `image` is what the image repository says of `wanted(director)`.

    `accepted_hw_classes` None: the device takes any, and the engine's own proof decides later. `holds` are release
    digests. Raises TrustRefused.
    """
    generation = _addressed(director, device, fleet, marks)
    chosen = wanted(director)
    if chosen is None:
        return _consistent(Assignment(generation), marks)
    if image is None:
        raise TrustRefused(Reason.UNKNOWN_TARGET, f"{chosen.path}: the image repository does not list it")
    target, release = _parsed(image, chosen)
    if accepted_hw_classes is not None and target.hw_class not in accepted_hw_classes:
        have = ", ".join(sorted(accepted_hw_classes)) or "none"
        raise TrustRefused(Reason.WRONG_HARDWARE, f"{target.path} is for {target.hw_class}; this device takes {have}")
    epoch = marks.epochs.get(target.name, 0)
    if target.release_epoch < epoch:
        raise TrustRefused(
            Reason.EPOCH_LOWER, f"{target.path} has release epoch {target.release_epoch}; here {epoch} was activated"
        )
    return _consistent(Assignment(generation, release, target, release.digest in holds), marks)


def mandated(mandate: Mandate, targets: tuple[SignedTarget, ...], device: str, marks: Marks) -> Statement:
    """What a mandate says to this device, in a director's form. Raises TrustRefused."""
    if len(targets) != 1:
        raise TrustRefused(Reason.MALFORMED, f"the mandate names {len(targets)} targets; it names one")
    if mandate.profile is None:
        return Statement(mandate.device, mandate.fleet, mandate.generation, targets)
    if mandate.profile != marks.profile:
        here = f"of profile {marks.profile!r}" if marks.profile else "of no profile yet"
        text = f"the mandate is for profile {mandate.profile!r}, and this device is {here}"
        raise TrustRefused(Reason.OTHER_PROFILE, text)
    return Statement(device, mandate.fleet, mandate.generation, targets)


def check_life(mandate: Mandate, expires: datetime, reference: datetime) -> None:
    """Raise MetadataStale for a mandate that has ended, TrustRefused for one that would last too long."""
    if reference >= expires:
        raise MetadataStale(f"the mandate ended on {expires:%Y-%m-%d}, and here it is {reference:%Y-%m-%d}")
    most = mandates.MAX_LIFE
    if expires > mandate.issued + most or expires > reference + most + mandates.CLOCK_SLACK:
        raise TrustRefused(
            Reason.TOO_LONG,
            f"the mandate of {mandate.issued:%Y-%m-%d} would be valid until {expires:%Y-%m-%d}, and here it is"
            f" {reference:%Y-%m-%d}; it may last {most.days} days. If this device's clock is behind, set it",
        )


def check_profile(mandate: Mandate, assignment: Assignment) -> None:
    """Raise TrustRefused when a profile's mandate names a release of another profile."""
    if mandate.profile is not None and assignment.release and assignment.release.profile != mandate.profile:
        text = f"the mandate is for profile {mandate.profile!r}, its release for {assignment.release.profile!r}"
        raise TrustRefused(Reason.DISAGREEMENT, text)


def _addressed(director: Statement, device: str, fleet: str, marks: Marks) -> int:
    if director.device != device:
        raise TrustRefused(Reason.OTHER_DEVICE, f"the metadata is for {director.device!r}, not {device!r}")
    if director.fleet != fleet:
        raise TrustRefused(Reason.OTHER_FLEET, f"the metadata is of fleet {director.fleet!r}, not {fleet!r}")
    generation = director.generation
    if type(generation) is not int or generation < 0:
        raise TrustRefused(Reason.MALFORMED, f"the generation {generation!r} is not a whole number")
    if generation < marks.generation:
        raise TrustRefused(Reason.GENERATION_LOWER, f"generation {generation} after {marks.generation}")
    return generation


def _parsed(image: SignedTarget, chosen: SignedTarget) -> tuple[ImageTarget, Release]:
    try:
        target = contract.parse(image.path, image.length, image.hashes, image.custom)
        hw_class = chosen.custom["hw_class"]
        release = releases.from_json(chosen.custom["release"])
    except (contract.TargetError, releases.ReleaseError, KeyError, TypeError) as error:
        raise TrustRefused(Reason.MALFORMED, f"{chosen.path}: {error}") from error
    pairs = {
        "path": (image.path, chosen.path),
        "length": (image.length, chosen.length),
        "sha256": (target.bundle, chosen.hashes.get("sha256")),
        "hw_class": (target.hw_class, hw_class),
    }
    for what, (existing, directed) in pairs.items():
        if existing != directed:
            raise TrustRefused(
                Reason.DISAGREEMENT,
                f"{chosen.path}: the image repository says {what} {existing!r}, the director {directed!r}",
            )
    named = (release.artifact, release.hw_class, release.runtime)
    if named != (target.bundle, target.hw_class, target.runtime) or target.kind != "model":
        raise TrustRefused(Reason.DISAGREEMENT, f"{chosen.path}: the release is of another artifact or hardware")
    return target, release


def _consistent(assignment: Assignment, marks: Marks) -> Assignment:
    if assignment.generation == marks.generation and marks.said not in {None, assignment.said}:
        raise TrustRefused(
            Reason.GENERATION_REUSED, f"generation {assignment.generation} says something else than it did before"
        )
    return assignment


def advance(marks: Marks, roles: Roles, assignment: Assignment, now: datetime) -> Marks:
    """The marks after trusting these roles' versions and this assignment at `now`. Raises TrustRefused.

    Call it only with metadata that was within its life at `now`: so the trusted time never passes the end of
    metadata that the controller signed, and a clock that runs wild for a day does no lasting harm.
    """
    for (repository, role), new in roles.items():
        old = marks.roles.get((repository, role))
        # A root's keys may change with each version, and its versions rise all the same.
        same_speaker = old is not None and (role == "root" or old.keys == new.keys)
        if old is not None and same_speaker and new.version < old.version:
            raise TrustRefused(
                Reason.ROLLBACK,
                f"{repository.name.lower()} {role} version {new.version} after {old.version}",
            )
    time = now if now - marks.trusted_time >= TIME_STEP else marks.trusted_time
    return replace(
        marks,
        roles={**marks.roles, **roles},
        generation=assignment.generation,
        said=assignment.said,
        trusted_time=time,
        profile=assignment.release.profile if assignment.release else None,
    )


def activated(marks: Marks, target: ImageTarget) -> Marks:
    """The marks after `target` took traffic: its release epoch is now the lowest that its model may have."""
    epoch = max(target.release_epoch, marks.epochs.get(target.name, 0))
    return replace(marks, epochs={**marks.epochs, target.name: epoch})


def reference_time(marks: Marks, clock: datetime) -> datetime:
    """The time by which metadata is judged: the clock, but never below the highest trusted time."""
    return max(clock, marks.trusted_time)
