"""Having here what builds need of their sources: fetched, dequantised, merged; one model after the other."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile.sources.sources import Asked, Resolved, SourceRefused, Sources
from edgewright_controller.compile.toolchain import ToolchainMissing
from edgewright_controller.service.job import Job


async def prepare(
    sources: Sources, asked: Mapping[str, Asked], resolved: Resolved, job: Job, file: str
) -> dict[str, str]:
    """Prepare the sources, by model. Returns why those that could not be were not, by model: others go on."""
    failed: dict[str, str] = {}
    for model, source in asked.items():

        def say(step: str, done: float, detail: str, model: str = model) -> None:
            job.say(_event(model, step, done, detail))

        try:
            await sources.prepare(source, resolved, say)
            job.say(_event(model, "done", 1.0, ""))
        except SourceRefused as error:
            failed[model] = f"{file}: models.{model}.{error.key}: {error}"
        except ToolchainMissing as error:
            failed[model] = f"{file}: models.{model}: {error}"
        if model in failed:
            job.say(_event(model, "failed", 0.0, failed[model].splitlines()[0]))
    return failed


def _event(model: str, step: str, done: float, detail: str) -> operator_pb2.ApplyEvent:
    """As a build of its own, named by the model: it has no build key."""
    stage = step.partition(" ")[0]
    return operator_pb2.ApplyEvent(
        build=operator_pb2.BuildProgress(
            build_key=f"source of {model}",
            model=model,
            runtime="source",
            stage=stage,
            fraction=min(1.0, max(0.0, done)),
            detail=detail,
        )
    )
