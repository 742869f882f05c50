"""Everything that was measured on one artifact, as plain numbers that can be kept and judged again. Pure.

A limit that changes later is applied to what was measured, so what is kept must be enough for that: of thousands of
tensors, those that any limit would refuse first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edgewright_controller.quality.divergence import Divergence, MeasureError
from edgewright_controller.quality.parity import Difference
from edgewright_controller.quality.precision import Precision, bits_per_weight, precision
from edgewright_controller.quality.tensors import TensorMeasure

# Raised when something else is measured, or in another way: what was measured before is then measured again.
GATE: Final = 4
# Of each list, in what is kept.
MAX_LISTED: Final = 20


@dataclass(frozen=True)
class Measures:
    """What the gate found.

    `parameters` are the source's weights, `weight_bytes` those of the artifact's tensors, `types` its weights by type.
    `tensors` has the worst of each type by each figure, `missing` names of the source without a tensor in the
    artifact, `surplus` names in the artifact that nothing in the source is like. `divergence` is None where it cannot
    be measured here: `unproven` says why. `whole`: no token more could have been measured. `fidelity` is the
    toolchain's, unquantised. `hyperparameters` and `parity` are what differs. `texts` is the sha256 of the texts that
    were used, `activation` the source's, `gate` the number of GATE then.
    """

    runtime: str
    parameters: int
    weight_bytes: int
    types: Mapping[str, int]
    tensors: tuple[TensorMeasure, ...] = ()
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    divergence: Divergence | None = None
    whole: bool = False
    fidelity: Divergence | None = None
    hyperparameters: tuple[str, ...] = ()
    parity: tuple[Difference, ...] = ()
    unproven: tuple[str, ...] = ()
    texts: str = ""
    activation: str = ""
    gate: int = field(default=GATE)

    @property
    def bits(self) -> float:
        """Measured bits of a weight."""
        return bits_per_weight(self.weight_bytes, self.parameters)

    @property
    def precision(self) -> Precision:
        """The class of precision that the measured bits make."""
        return precision(self.bits)

    @property
    def tokens(self) -> int:
        """Over how many tokens the divergence was measured."""
        return self.divergence.tokens if self.divergence else 0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object without NaN and infinity, which stand there as text."""
        document = asdict(self)
        for name in ("divergence", "fidelity"):
            document[name] = _written(document[name]) if document[name] else None
        document["tensors"] = [_written(one) for one in document["tensors"]]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measures:
        """The measures in what `to_json` gave. Raises MeasureError for anything else."""
        try:
            return cls(
                **{
                    **document,
                    "types": dict(document["types"]),
                    "tensors": tuple(TensorMeasure(**_read(one)) for one in document["tensors"]),
                    "missing": tuple(document["missing"]),
                    "surplus": tuple(document["surplus"]),
                    "divergence": _divergence(document["divergence"]),
                    "fidelity": _divergence(document["fidelity"]),
                    "hyperparameters": tuple(document["hyperparameters"]),
                    "parity": tuple(Difference(**one) for one in document["parity"]),
                    "unproven": tuple(document["unproven"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MeasureError(f"these are not the measures of an artifact: {error}") from error


def _divergence(document: Mapping[str, Any] | None) -> Divergence | None:
    return Divergence(**_read(document)) if document else None


def _written(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}


def _read(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(v) if v in ("inf", "-inf", "nan") else v for name, v in figures.items()}
