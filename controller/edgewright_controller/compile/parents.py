"""The unquantised model in an artifact's own runtime: what speed and memory are compared with.

It is in the type that its source has, or, for ONNX, in fp32, the one that every processor computes with: what somebody
would serve who had not quantised. For llama.cpp and ONNX it comes out of what the builds share; mlx-lm serves the
checkpoint itself, its config cured as for a build.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgewright_controller.compile.backends import mlx
from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import ModelFacts

_MLX_TYPES: Final = {"bf16": "bf16", "f16": "fp16", "f32": "fp32"}


def recipe(runtime: str, facts: ModelFacts) -> Recipe:
    """The recipe of the unquantised model in this runtime. Pure."""
    if runtime == "onnx":
        return make("onnx", "fp32")
    return make("gguf", facts.dtype.upper()) if runtime == "gguf" else make("mlx", _MLX_TYPES[facts.dtype])


@contextlib.asynccontextmanager
async def unquantised(job: Job, build: Callable[[Job], Awaitable[None]]) -> AsyncIterator[Path]:
    """A folder that an engine serves, until the block ends. `job` is the artifact's, with a staged source of its own;
    `build` is its backend's. Raises StageFailed, OSError."""
    if job.recipe.runtime == "mlx":
        mlx.cure_staged(job.staged)
        yield job.staged
        return
    made = replace(job, recipe=recipe(job.recipe.runtime, job.facts), out=job.scratch / "parent")
    try:
        await build(made)
        yield made.out
    finally:
        await asyncio.to_thread(shutil.rmtree, made.out, ignore_errors=True)
