"""The report card of one build: everything that was measured on its artifact, on what, and by what. Pure.

A card is a value that is kept as canonical JSON; its sha256 stands in the build's provenance. What is not known says
why: nothing on a card is guessed. A card of a newer format is not read by an older controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_controller.quality import performance
from edgewright_controller.quality.divergence import MeasureError
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.performance import Performance, PerformanceError

FORMAT: Final = 1


class CardError(ValueError):
    """The document is not a report card."""


@dataclass(frozen=True)
class Host:
    """Where it was measured: the processor's name, its cores as the system counts them, bytes of memory, the system."""

    processor: str
    cores: int
    memory_bytes: int
    system: str


@dataclass(frozen=True)
class Origin:
    """What was compiled: the digest of its files, where they came from as far as that may be told, whether they were
    quantised before (then every figure is relative to that), and the digest of the calibration text, if there was one.
    """

    digest: str
    where: str = ""
    requantised: bool = False
    calibration: str = ""


@dataclass(frozen=True)
class ReportCard:
    """One build's card.

    `measures` is None for what was not gated. `performance` is the artifact's, `parent` the unquantised model's in the
    same runtime on the same host; where one is None, `unmeasured` or `parent_unmeasured` says why.
    """

    artifact: str
    build_key: str
    runtime: str
    quantization: str
    recipe: Mapping[str, Any]
    size_bytes: int
    origin: Origin
    toolchain: Mapping[str, str]
    host: Host
    measures: Measures | None = None
    performance: Performance | None = None
    unmeasured: str = ""
    parent: Performance | None = None
    parent_unmeasured: str = ""
    edgewright: str = field(default="")

    @property
    def fallbacks(self) -> dict[str, int]:
        """Weights by type, of tensors that have another type than most of the weights have."""
        types = self.measures.types if self.measures else {}
        usual = max(types, key=lambda name: types[name], default="")
        return {name: count for name, count in sorted(types.items()) if name != usual}

    @property
    def unproven(self) -> tuple[str, ...]:
        """What could not be checked on this host, and why."""
        return self.measures.unproven if self.measures else ()

    @property
    def decode_speed_up(self) -> float | None:
        """How many times as many tokens a second as the parent's."""
        return performance.speed_up(self.performance, self.parent, lambda one: one.decode_tokens_per_s)

    @property
    def prefill_speed_up(self) -> float | None:
        """The same of the prompt's tokens."""
        return performance.speed_up(self.performance, self.parent, lambda one: one.prefill_tokens_per_s)

    @property
    def memory_saved(self) -> float | None:
        """The share of the parent's peak memory that serving the artifact does without."""
        if self.performance is None or self.parent is None:
            return None
        return performance.saved(self.performance.peak_bytes, self.parent.peak_bytes)

    @property
    def headline(self) -> str:
        """The figures that count most beside the size, on one line."""
        parts = []
        if self.measures is not None:
            parts.append(f"{self.measures.bits:.2f} bits")
            if self.measures.divergence is not None:
                parts.append(f"KL {self.measures.divergence.kl:.3g}")
        rate = self.performance.decode_tokens_per_s if self.performance else None
        if rate:
            faster = f" (× {self.decode_speed_up:.2f})" if self.decode_speed_up else ""
            parts.append(f"{rate:.1f} tokens/s{faster}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, ready for `canonical.encode`."""
        return {
            "edgewright_report_card": FORMAT,
            "artifact": self.artifact,
            "build_key": self.build_key,
            "runtime": self.runtime,
            "quantization": self.quantization,
            "recipe": dict(self.recipe),
            "size_bytes": self.size_bytes,
            "origin": vars(self.origin),
            "toolchain": dict(self.toolchain),
            "host": vars(self.host),
            "measures": self.measures.to_json() if self.measures else None,
            "performance": self.performance.to_json() if self.performance else None,
            "unmeasured": self.unmeasured,
            "parent": self.parent.to_json() if self.parent else None,
            "parent_unmeasured": self.parent_unmeasured,
            "edgewright": self.edgewright,
        }

    def encode(self) -> bytes:
        """The one spelling of the card."""
        return canonical.encode(self.to_json())

    @property
    def digest(self) -> str:
        """The sha256 of its one spelling."""
        return digest.of_bytes(self.encode())


def from_json(document: Any) -> ReportCard:
    """The card in what `to_json` gave. Raises CardError."""
    if not isinstance(document, Mapping) or document.get("edgewright_report_card") != FORMAT:
        found = document.get("edgewright_report_card") if isinstance(document, Mapping) else None
        raise CardError(f"report card format {found!r}; this controller reads {FORMAT}")
    try:
        measures, own, parent = (document[name] for name in ("measures", "performance", "parent"))
        return ReportCard(
            **{name: str(document[name]) for name in ("artifact", "build_key", "runtime", "quantization")},
            **{name: str(document[name]) for name in ("unmeasured", "parent_unmeasured", "edgewright")},
            recipe=dict(document["recipe"]),
            size_bytes=int(document["size_bytes"]),
            origin=Origin(**document["origin"]),
            toolchain=dict(document["toolchain"]),
            host=Host(**document["host"]),
            measures=Measures.from_json(measures) if measures is not None else None,
            performance=Performance.from_json(own) if own is not None else None,
            parent=Performance.from_json(parent) if parent is not None else None,
        )
    except (KeyError, TypeError, ValueError, MeasureError, PerformanceError) as error:
        raise CardError(f"not a report card: {error}") from error
