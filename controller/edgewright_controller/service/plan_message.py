"""A plan as the wire has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.plan import Kind, Plan

_KINDS: Final[Mapping[Kind, operator_pb2.PlannedChange.Kind]] = {
    Kind.NONE: operator_pb2.PlannedChange.KIND_NONE,
    Kind.INSTALL: operator_pb2.PlannedChange.KIND_INSTALL,
    Kind.UPDATE: operator_pb2.PlannedChange.KIND_UPDATE,
    Kind.REMOVE: operator_pb2.PlannedChange.KIND_REMOVE,
    Kind.HELD: operator_pb2.PlannedChange.KIND_HELD,
    Kind.UNENROLLED: operator_pb2.PlannedChange.KIND_UNENROLLED,
    Kind.CORDONED: operator_pb2.PlannedChange.KIND_CORDONED,
}


def message(plan: Plan) -> operator_pb2.PlanResponse:
    """The plan, ready to be sent."""
    return operator_pb2.PlanResponse(
        builds=[
            operator_pb2.PlannedBuild(
                build_key=build.key,
                model=build.model,
                profiles=build.profiles,
                runtime=build.recipe.runtime,
                quantization=build.recipe.quantization,
                cached=build.cached,
                estimated_bytes=build.size_bytes,
            )
            for build in plan.builds
        ],
        changes=[
            operator_pb2.PlannedChange(
                device=change.device,
                model=change.model,
                profile=change.profile,
                from_release=change.from_release,
                to_release=change.to_release,
                kind=_KINDS[change.kind],
                note=change.note,
            )
            for change in plan.changes
        ],
        misfits=[
            operator_pb2.Misfit(
                device=misfit.device,
                what=misfit.what.value,
                needed_bytes=misfit.needed_bytes,
                available_bytes=misfit.available_bytes,
                message=misfit.message,
            )
            for misfit in plan.misfits
        ],
        warnings=plan.warnings,
        waves=[
            operator_pb2.WaveView(
                number=number,
                devices=len(wave.devices),
                soak_s=wave.soak_s,
                then=wave.then.value,
                what=wave.what,
            )
            for number, wave in enumerate(plan.waves, 1)
        ],
    )
