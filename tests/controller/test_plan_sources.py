"""Plans of models whose source is not here: what is known of their builds, and what has to be done first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from edgewright_controller.cli import printing
from edgewright_controller.plan import Kind, PlanError, Preparation, plan
from edgewright_controller.service import plan_message
from edgewright_controller.world import ToPrepare, World
from tests.controller.small_fleet import ENROLLED, SOURCE, TOOLCHAINS, built, manifest

FAR = ToPrepare(("fetch hf://acme/x@main", "merge tuned"), 6_200_000_000)
NEVER_HERE = World(
    devices=dict.fromkeys(("jetson-01", "jetson-02", "mac-01"), ENROLLED),
    to_prepare={"smollm2": FAR},
    source_notes=("models.smollm2: hf://acme/x@main moves",),
    toolchains=TOOLCHAINS,
)


def test_builds_of_a_source_that_was_never_here_are_listed_without_a_key() -> None:
    small = ('accelerator = "metal"\nmemory = "8GB"', 'accelerator = "metal"\nmemory = "1MB"')
    made = plan(manifest(small), NEVER_HERE)
    assert made.preparations == (Preparation("smollm2", FAR.steps, FAR.fetch_bytes),)
    assert [(build.profiles, build.provisional, build.size_bytes) for build in made.builds] == [
        (("jetson",), True, 0),
        (("mac",), True, 0),
    ]
    assert {change.kind for change in made.changes} == {Kind.INSTALL}
    assert made.misfits == (), "what it takes is told when it is known"
    assert made.warnings[0] == "models.smollm2: hf://acme/x@main moves"
    said = plan_message.message(made)
    assert [build.build_key for build in said.builds] == ["", ""]
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(printing.plan(said))
    assert "+ source of smollm2: fetch hf://acme/x@main, merge tuned: 6.2 GB to fetch" in shown.get()
    assert "size not known yet" in shown.get()


def test_a_recipe_that_is_searched_is_not_chosen_before_its_source_is_here() -> None:
    made = plan(manifest(('quantization = "Q4_K_M"', 'quantization = "auto"')), NEVER_HERE)
    assert [(build.recipe.quantization, build.provisional) for build in made.builds] == [("auto", True), ("4bit", True)]
    assert made.searches == ()


def test_a_source_that_made_room_is_only_fetched_for_builds_that_are_missing() -> None:
    known = replace(NEVER_HERE, sources={"smollm2": SOURCE})
    made = plan(manifest(), known)
    assert not any(build.provisional for build in made.builds)
    assert made.preparations
    builds = {build.key: built(digit) for build, digit in zip(made.builds, "ab", strict=True)}
    assert plan(manifest(), replace(known, builds=builds)).preparations == ()


def test_a_source_that_nobody_looked_at_is_a_fault() -> None:
    with pytest.raises(PlanError, match=r"models\.smollm2\.source: was not looked at"):
        plan(manifest(), replace(NEVER_HERE, to_prepare={}))
