"""What a plan must know besides the manifest: facts that somebody looked up, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from edgewright_contract.release import Release

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts
    from edgewright_controller.quality.measures import Measures


class Outcome(Enum):
    """How the device's last update ended; the numbers are the wire's."""

    NONE = 0
    IN_PROGRESS = 1
    SUCCEEDED = 2
    FAILED = 3
    HELD = 4


@dataclass(frozen=True)
class SourceFact:
    """A source or prebuilt artifact: the digest of its files, all their bytes, and what the model looks like.
    A prebuilt artifact has no `model`. `calibration` is the sha256 of the text that recipes measure it with."""

    digest: str
    bytes: int
    model: ModelFacts | None = None
    calibration: str = ""

    @property
    def beside_bytes(self) -> int:
        """Bytes of what stands beside the weights: tokenizer, configuration. 0 where the model is not known."""
        return max(0, self.bytes - self.model.bytes) if self.model else 0


@dataclass(frozen=True)
class ToPrepare:
    """What has to be done before anything is built from a model's source, in words, and bytes to fetch for it."""

    steps: tuple[str, ...]
    fetch_bytes: int


@dataclass(frozen=True)
class BuildFact:
    """A finished build: the artifact's bundle digest, the bytes of its files, and the sha256 of its chat template."""

    artifact: str
    size_bytes: int
    chat_template: str = ""


@dataclass(frozen=True)
class InventoryFact:
    """What a device reported of itself. `accelerators` are kinds: "cuda", "cpu"; `runtimes` those with an engine."""

    memory_bytes: int
    disk_free_bytes: int
    runtimes: frozenset[str] = frozenset()
    accelerators: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RollbackFact:
    """Who took a release back, when (Unix milliseconds), and why; empty when no reason was given."""

    by: str
    at_ms: int
    why: str = ""


@dataclass(frozen=True)
class DeviceFact:
    """A device as the ledger knows it. Releases are digests, empty for none. `active_release` is what it said that
    it serves, `previous_release` what it still holds besides, `outcome` and `reason` how it fared with
    `desired_release`. `given_release` is what it is to have, whether or not it has concluded that. `rolled_back` is
    what a rollback took from this device and not from the whole fleet, by digest. One that was revoked or
    `decommissioned` is not enrolled any more. `cordoned` says by whom and why, empty when it is not."""

    enrolled: bool = True
    revoked: bool = False
    decommissioned: bool = False
    cordoned: str = ""
    online: bool = False
    generation: int = 0
    desired_release: str = ""
    given_release: str = ""
    active_release: str = ""
    previous_release: str = ""
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    held_releases: frozenset[str] = frozenset()
    rolled_back: Mapping[str, RollbackFact] = field(default_factory=dict)
    inventory: InventoryFact | None = None


@dataclass(frozen=True)
class World:
    """Everything that a plan looks at.

    `builds` and `measures` are by build key; where builds are `gated`, one counts only with measures that pass.
    `sources` is by the model's id; it lacks those that are only known once they were prepared. `to_prepare` are those
    that are not here, by the model's id; `source_notes` is what to know of any. `shapes` is what is known of models
    that are only
    shipped prebuilt, by the model's id; it may lack some. `prebuilt` is by the path in the resolved manifest.
    `toolchains` is by runtime. `rolled_back` is what a rollback took from the whole fleet, by digest. `releases` are
    those that devices serve, are to serve, or that were rolled back, by digest.
    """

    builds: Mapping[str, BuildFact] = field(default_factory=dict)
    measures: Mapping[str, Measures] = field(default_factory=dict)
    gated: bool = False
    devices: Mapping[str, DeviceFact] = field(default_factory=dict)
    rolled_back: Mapping[str, RollbackFact] = field(default_factory=dict)
    sources: Mapping[str, SourceFact] = field(default_factory=dict)
    to_prepare: Mapping[str, ToPrepare] = field(default_factory=dict)
    source_notes: tuple[str, ...] = ()
    shapes: Mapping[str, ModelFacts] = field(default_factory=dict)
    prebuilt: Mapping[str, SourceFact] = field(default_factory=dict)
    toolchains: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    releases: Mapping[str, Release] = field(default_factory=dict)

    def shape(self, model: str) -> ModelFacts | None:
        """What the model looks like, as far as anybody knows."""
        source = self.sources.get(model)
        return source.model if source else self.shapes.get(model)
