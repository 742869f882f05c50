"""Plans for profiles that say `quantization = "auto"`: what is tried next, what is chosen, and when nothing is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from edgewright_controller.cli import printing
from edgewright_controller.compile.search import Standing
from edgewright_controller.manifest import Manifest
from edgewright_controller.plan import Build, PlanError, plan
from edgewright_controller.quality.divergence import Divergence
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.tensors import TensorMeasure
from edgewright_controller.service import plan_message
from edgewright_controller.world import World
from tests.controller.small_fleet import ENROLLED, SOURCE, TOOLCHAINS, built, manifest, refusal

AUTO = ('quantization = "Q4_K_M"', 'quantization = "auto"')
WORLD = World(
    devices=dict.fromkeys(("jetson-01", "jetson-02", "mac-01"), ENROLLED),
    sources={"smollm2": SOURCE},
    toolchains=TOOLCHAINS,
    gated=True,
)


def _measures(kl: float) -> Measures:
    found = Divergence(8184, kl, kl / 50, 2 * kl, 0.99, 13.0, 1.001, 0.01)
    return Measures(
        runtime="gguf",
        parameters=1000,
        weight_bytes=600,
        types={"Q8_0": 1000},
        tensors=(TensorMeasure("a", "Q8_0", 1000, 0.0, 1.0, 0.0, 0.0),),
        divergence=found,
        whole=True,
        fidelity=replace(found, kl=1e-11),
    )


def _tried(fleet: Manifest, world: World) -> Build:
    (build,) = [build for build in plan(fleet, world).builds if build.recipe.runtime == "gguf"]
    return build


def _after(world: World, build: Build, kl: float) -> World:
    """The world after this build, of which so much divergence was measured; over 0.1 it was not stored."""
    builds = {**world.builds, **({build.key: built("a", build.size_bytes)} if kl <= 0.1 else {})}
    return replace(world, builds=builds, measures={**world.measures, build.key: _measures(kl)})


def test_the_smallest_is_tried_until_one_passes_and_then_released() -> None:
    fleet, world = manifest(AUTO), WORLD
    tried: list[Build] = []
    for kl in (0.9, 0.3, 0.05):
        build = _tried(fleet, world)
        assert (build.tried, build.cached, build.refused) == (True, False, ())
        tried.append(build)
        world = _after(world, build, kl)
    assert [one.size_bytes for one in tried] == sorted(one.size_bytes for one in tried)
    made = plan(fleet, world)
    (search,) = made.searches
    assert search.recipe == tried[-1].recipe
    assert [row.standing for row in search.search.table[:3]] == [Standing.REFUSED, Standing.REFUSED, Standing.PASSED]
    chosen = _tried(fleet, world)
    assert (chosen.key, chosen.tried, chosen.cached) == (tried[-1].key, False, True)
    assert made.changes[0].release is not None
    assert made.changes[0].release.artifact == "a" * 64


def test_a_limit_of_the_profile_decides_what_passes() -> None:
    strict = manifest(AUTO, ("[devices.mac-01]", "[profiles.jetson.quality]\nkl = 0.01\n\n[devices.mac-01]"))
    first = _tried(strict, WORLD)
    world = _after(WORLD, first, 0.05)
    assert _tried(manifest(AUTO), world).cached
    assert _tried(strict, world).key != first.key, "what is enough for one profile is not for the other"


def test_what_another_profile_names_is_refused_for_that_one_although_it_was_only_tried_here() -> None:
    twin = '[profiles.twin]\nruntime = "gguf"\nquantization = "{}"\naccelerator = "cpu"\nmemory = "4GB"\n'
    first = _tried(manifest(AUTO), WORLD)
    named = twin.format(first.recipe.quantization) + '[devices.jetson-02]\nprofile = "twin"'
    both = manifest(AUTO, ('[devices.jetson-02]\nprofile = "jetson"', named))
    build = _tried(both, WORLD)
    assert build.key == first.key
    assert build.profiles == ("jetson", "twin")
    assert not build.tried


def test_what_does_not_fit_the_profiles_memory_is_not_tried() -> None:
    tight = manifest(AUTO, ('accelerator = "cuda"\nmemory = "8GB"', 'accelerator = "cuda"\nmemory = "260MB"'))
    (search,) = plan(tight, WORLD).searches
    assert search.recipe is not None
    large = {row.candidate.recipe.quantization for row in search.search.table if row.standing is Standing.TOO_LARGE}
    assert {"BF16", "F32"} <= large
    with pytest.raises(PlanError, match=r"profiles\.jetson\.quantization: auto: no recipe .* passes and fits"):
        plan(manifest(AUTO, ('accelerator = "cuda"\nmemory = "8GB"', 'accelerator = "cuda"\nmemory = "64MB"')), WORLD)


def test_when_all_are_refused_the_plan_says_each_reason() -> None:
    fleet, world = manifest(AUTO), WORLD
    measures = {row.candidate.key: _measures(2.0) for row in plan(fleet, world).searches[0].search.table}
    with pytest.raises(PlanError) as refused:
        plan(fleet, replace(world, measures=measures))
    assert "gguf Q8_0: refused: divergence: mean KL 2 nats, at most 0.1" in str(refused.value)


def test_options_that_leave_no_recipe_are_refused_by_their_key() -> None:
    assert "profiles.mac.recipe.mode: " in refusal(
        ('quantization = "4bit"', 'quantization = "auto"\nrecipe = { mode = "mxfp4", group_size = 64 }')
    )


def test_the_table_is_shown_with_what_was_chosen() -> None:
    fleet, world = manifest(AUTO), WORLD
    for kl in (0.9, 0.05):
        world = _after(world, _tried(fleet, world), kl)
    (found,) = plan_message.searches(plan(fleet, world))
    assert found.chosen == found.tried[1].recipe
    assert (found.tried[0].standing, found.tried[0].kl) == ("refused", 0.9)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(printing.search(found))
    lines = shown.get().splitlines()
    assert lines[0].strip() == f"auto: smollm2 for jetson takes {found.chosen}"
    assert "refused" in lines[2]
    assert "chosen" in lines[3]
