"""MLX: mlx-lm's converter, on a source whose config says the rotary base where mlx-lm reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.calibration import LEAST_TOKENS
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.mlx_config import ConfigError, cure
from edgewright_controller.compile.recipe import Recipe, check_model
from edgewright_controller.compile.recipe_mlx import MIXED
from edgewright_controller.compile.recipe_option import Option, RecipeError
from edgewright_controller.compile.source import Source

_FLOATS = {"bf16": ("bfloat16", 16.0), "fp16": ("float16", 16.0), "fp32": ("float32", 32.0)}


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """The artifact; mlx-lm keeps nothing else on the disk."""
    parameters = source.facts.parameters if source.facts else source.bytes
    float_type = _FLOATS.get(recipe.quantization)
    bits = float_type[1] if float_type else _bits(recipe.quantization) + 1.0
    return int(parameters * bits / 8) + (64 << 20)


def cure_staged(staged: Path) -> None:
    """Write the rotary base into the staged config where mlx-lm reads it. Raises StageFailed."""
    config = staged / "config.json"
    try:
        cured = cure(json.loads(config.read_bytes()))
    except ConfigError as error:
        raise StageFailed("mlx_convert", str(error), None, ()) from error
    # The staged config is a link to the source's, which is nobody's to change.
    config.unlink()
    config.write_text(json.dumps(cured, indent=2, sort_keys=True))


async def build(job: Job) -> None:
    """Convert, or learn, with the config cured first."""
    cure_staged(job.staged)
    places = {"source": str(job.staged), "out": str(job.out)}
    recipe = job.recipe
    try:
        check_model(recipe, job.facts)
    except RecipeError as error:
        raise StageFailed("prepare", str(error), None, ()) from error
    if job.calibration is None or not recipe.calibrated:
        await job.run("mlx_convert", {**places, "arguments": _arguments(recipe.quantization, recipe.options)}, 1.0)
        return
    request = {
        **places,
        "learned": recipe.options["learned"],
        "bits": _bits(recipe.quantization),
        "group_size": recipe.options["group_size"],
        "text": str(job.calibration.path),
        "least": LEAST_TOKENS,
    }
    await job.run("mlx_learn", request, 1.0)


def _bits(quantization: str) -> int:
    """Bits of most weights, without their scales; of a mixture the larger ones."""
    return int(quantization.rpartition("_")[2].removesuffix("bit"))


def _arguments(quantization: str, options: dict[str, Option]) -> dict[str, Any]:
    """Keyword arguments of mlx_lm.convert."""
    if quantization in _FLOATS:
        return {"dtype": _FLOATS[quantization][0]}
    if quantization in MIXED:
        return {"quantize": True, "q_group_size": options["group_size"], "quant_predicate": quantization}
    return {
        "quantize": True,
        "q_bits": _bits(quantization),
        "q_group_size": options["group_size"],
        "q_mode": options["mode"],
    }
