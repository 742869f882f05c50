"""What a plan consists of: builds, what comes before them, and what happens to each device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from edgewright_contract.release import Release
from edgewright_controller.choosing import Choosing
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.fit import Misfit
from edgewright_controller.quality.limits import Overrides
from edgewright_controller.waves import PlannedWave


class PlanError(Exception):
    """The plan needs a fact that the world does not have; the message names it."""


class Kind(Enum):
    """What happens to a device."""

    NONE = "none"
    INSTALL = "install"
    UPDATE = "update"
    REMOVE = "remove"
    HELD = "held"  # rolled back or failed there before; only `again` releases it
    UNENROLLED = "unenrolled"
    CORDONED = "cordoned"  # it would change; left as it is until it is uncordoned


TO_DO: Final = (Kind.INSTALL, Kind.UPDATE, Kind.REMOVE)


@dataclass(frozen=True)
class Build:
    """One distinct build. `source` is what the manifest names, or the path of a prebuilt artifact. `artifact` is empty
    and `size_bytes` a prediction (0 when nothing is known) until it is `cached`. `quality` is what its profiles say of
    its limits. `refused` says why what was measured on it before is outside of them, empty when it is not. `tried`:
    only profiles whose recipe is being searched want it, so that its refusal is no failure. Its `key` is `provisional`
    until its source was prepared, and then is no build key."""

    key: str
    model: str
    profiles: tuple[str, ...]
    recipe: Recipe
    source: str
    cached: bool
    artifact: str
    size_bytes: int
    quality: tuple[Overrides, ...] = ()
    refused: tuple[str, ...] = ()
    tried: bool = False
    provisional: bool = False


@dataclass(frozen=True)
class Preparation:
    """A model's source that is fetched, dequantised or merged before the builds: the steps in words, bytes to fetch."""

    model: str
    steps: tuple[str, ...]
    fetch_bytes: int


@dataclass(frozen=True)
class Change:
    """What happens to one device. Releases are digests; `to_release` is empty, and `release` None, until the build is
    there or when everything is removed. `lifts_hold`: the device must be told to give up its hold first."""

    device: str
    model: str
    profile: str
    kind: Kind
    from_release: str
    to_release: str
    note: str = ""
    release: Release | None = None
    build_key: str = ""
    lifts_hold: bool = False


@dataclass(frozen=True)
class Plan:
    """Builds by model and recipe, changes by device, in which waves a rollout carries out those `to_do`, and where the
    searches of profiles without a recipe of their own stand. `preparations` are what the missing builds need first."""

    builds: tuple[Build, ...]
    changes: tuple[Change, ...]
    misfits: tuple[Misfit, ...]
    warnings: tuple[str, ...]
    waves: tuple[PlannedWave, ...] = ()
    searches: tuple[Choosing, ...] = ()
    preparations: tuple[Preparation, ...] = ()

    @property
    def missing_builds(self) -> tuple[Build, ...]:
        """Builds that have to be made."""
        return tuple(build for build in self.builds if not build.cached and not build.refused)

    @property
    def refused_builds(self) -> tuple[Build, ...]:
        """Builds that would be made for nothing: the gate has refused them before, and would again."""
        return tuple(build for build in self.builds if build.refused)

    @property
    def to_do(self) -> tuple[Change, ...]:
        """Changes that a rollout carries out."""
        return tuple(change for change in self.changes if change.kind in TO_DO)
