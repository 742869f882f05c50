"""Where the search of a profile that says `quantization = "auto"` stands, from what was measured before. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright_controller import artifact_size, fit
from edgewright_controller.compile.candidates import candidates
from edgewright_controller.compile.recipe import Recipe, check_model, options_of
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.compile.search import Candidate, Outcome, Search, search
from edgewright_controller.manifest import Profile
from edgewright_controller.quality import verdict
from edgewright_controller.quality.limits import limits
from edgewright_controller.world import SourceFact, World

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts

# A table in an error's text: what stands further down is larger still.
_MAX_TOLD = 40


@dataclass(frozen=True)
class Choosing:
    """The search for one model and one profile of the manifest."""

    model: str
    profile: str
    search: Search

    @property
    def recipe(self) -> Recipe | None:
        """What was chosen, else what is to be tried next, else None."""
        found = self.search.chosen or self.search.next
        return found.recipe if found else None

    @property
    def failure(self) -> str:
        """That no candidate is left, and what became of each, for a person."""
        lines = [f"    {row.candidate.recipe}: {row.standing.value}: {row.why}" for row in self.search.table]
        more = [f"    and {len(lines) - _MAX_TOLD} more"] if len(lines) > _MAX_TOLD else []
        first = (
            f"profiles.{self.profile}.quantization: auto: no recipe makes an artifact of models.{self.model} that"
            f" passes and fits; grant more memory, or allow more divergence by profiles.{self.profile}.quality.kl"
        )
        return "\n".join([first, *lines[:_MAX_TOLD], *more])


def choosing(
    model: str, name: str, profile: Profile, source: SourceFact, world: World, *, key_of: Callable[[Recipe], str]
) -> Choosing:
    """Where the search stands. `key_of` gives a recipe's build key for this source. Raises RecipeError when the
    profile's options leave no recipe."""
    listed, outcomes = [], {}
    for recipe in candidates(profile.runtime, options_of(profile)):
        if source.model is not None and not _suits(recipe, source.model):
            continue
        key = key_of(recipe)
        built = world.builds.get(key)
        if built is not None:
            size = built.size_bytes
        elif source.model is not None:
            size = artifact_size.predicted_bytes(recipe, source.model, source.beside_bytes)
        else:
            size = source.bytes
        served = fit.memory_bytes(concrete(profile, recipe), size, source.model)
        listed.append(Candidate(recipe, key, size, served))
        outcome = _outcome(key, profile, world)
        if outcome is not None:
            outcomes[key] = outcome
    return Choosing(model, name, search(listed, outcomes, profile.memory_bytes))


def _suits(recipe: Recipe, model: ModelFacts) -> bool:
    try:
        check_model(recipe, model)
    except RecipeError:
        return False  # a group that does not divide this model's rows: one of the others will
    return True


def concrete(profile: Profile, recipe: Recipe) -> Profile:
    """The profile as if it named the recipe's precision."""
    return profile.model_copy(update={"quantization": recipe.quantization}) if profile.is_auto else profile


def _outcome(key: str, profile: Profile, world: World) -> Outcome | None:
    """What is known of a candidate, None when it has to be built for that."""
    if not world.gated:
        return Outcome() if key in world.builds else None
    measures = world.measures.get(key)
    if measures is None:
        return None
    allowed = limits(measures.runtime, measures.precision, profile.overrides)
    if not verdict.is_settled(measures, allowed):
        return None
    refused = verdict.judge(measures, allowed)
    return Outcome(str(refused[0]) if refused else "", measures.divergence.kl if measures.divergence else None)
