"""A plan as the wire has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile.search import Search
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


def searches(plan: Plan) -> list[operator_pb2.RecipeSearch]:
    """Where the searches of profiles without a recipe of their own stand, alike ones of one model as one."""
    found: dict[tuple[str, Search], list[str]] = {}
    for one in plan.searches:
        found.setdefault((one.model, one.search), []).append(one.profile)
    return [_search(model, profiles, search) for (model, search), profiles in found.items()]


def _search(model: str, profiles: Sequence[str], search: Search) -> operator_pb2.RecipeSearch:
    tried = [
        operator_pb2.TriedRecipe(
            recipe=str(row.candidate.recipe),
            artifact_bytes=row.candidate.size_bytes,
            memory_bytes=row.candidate.memory_bytes,
            standing=row.standing.value,
            kl=row.kl,
            why=row.why,
        )
        for row in search.table
    ]
    chosen = str(search.chosen.recipe) if search.chosen else ""
    return operator_pb2.RecipeSearch(model=model, profiles=profiles, tried=tried, chosen=chosen)


def message(plan: Plan) -> operator_pb2.PlanResponse:
    """The plan, ready to be sent."""
    return operator_pb2.PlanResponse(
        builds=[
            operator_pb2.PlannedBuild(
                build_key="" if build.provisional else build.key,
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
        searches=searches(plan),
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
        sources=[
            operator_pb2.PlannedSource(model=one.model, steps=one.steps, fetch_bytes=one.fetch_bytes)
            for one in plan.preparations
        ],
    )
