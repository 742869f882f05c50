"""MLX: mlx-lm's converter, on a source whose config says the rotary base where mlx-lm reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.mlx_config import ConfigError, cure
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.recipe_option import Option
from edgewright_controller.compile.source import Source

_FLOATS = {"bf16": ("bfloat16", 16.0), "fp16": ("float16", 16.0), "fp32": ("float32", 32.0)}


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """The artifact; mlx-lm keeps nothing else on the disk."""
    parameters = source.facts.parameters if source.facts else source.bytes
    if recipe.quantization in _FLOATS:
        bits = _FLOATS[recipe.quantization][1]
    else:
        bits = int(recipe.quantization.removesuffix("bit")) + 1.0
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
    """Convert, with the config cured first."""
    cure_staged(job.staged)
    request = {
        "source": str(job.staged),
        "out": str(job.out),
        "arguments": _arguments(job.recipe.quantization, job.recipe.options),
    }
    await job.run("mlx_convert", request, 1.0)


def _arguments(quantization: str, options: dict[str, Option]) -> dict[str, Any]:
    """Keyword arguments of mlx_lm.convert."""
    if quantization in _FLOATS:
        return {"dtype": _FLOATS[quantization][0]}
    return {
        "quantize": True,
        "q_bits": int(quantization.removesuffix("bit")),
        "q_group_size": options["group_size"],
        "q_mode": options["mode"],
    }
