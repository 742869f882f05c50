"""The build key: a name for everything that decides an artifact's bytes. Pure.

Same key, same bytes; so an artifact with this key need not be built again, on this machine or another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile.recipe import Recipe

FORMAT: Final = 1

# Raised when our own build steps for a runtime would give other bytes, so that cached artifacts are not reused.
STEPS: Final = {"gguf": 2, "mlx": 2, "onnx": 3}


def build_key(source_digest: str, recipe: Recipe, versions: Mapping[str, str], calibration_digest: str = "") -> str:
    """The sha256 that names this build.

    `versions` is what `toolchain.versions` says: the packages that write the bytes, and the platform, because
    quantisers round floats with what the processor has. A prebuilt artifact has neither: its source is its bytes.
    `calibration_digest`, the sha256 of the calibration text, counts where the recipe reads it.
    """
    document: dict[str, object] = {"edgewright_build": FORMAT, "source": source_digest, "recipe": recipe.to_json()}
    if not recipe.prebuilt:
        document |= {"steps": STEPS[recipe.runtime], "toolchain": dict(versions)}
    if recipe.calibrated:
        document["calibration"] = calibration_digest
    return digest.of_bytes(canonical.encode(document))
