"""Which builds a manifest asks for: one for each distinct build key, with what is known of it already."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from edgewright_controller import artifact_size
from edgewright_controller.choosing import Choosing, choosing, concrete
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.recipe import Recipe, check_model, recipe_of
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.manifest import Manifest, Profile
from edgewright_controller.manifest.profiles import AUTO
from edgewright_controller.plan.values import Build, PlanError, Preparation
from edgewright_controller.quality import verdict
from edgewright_controller.quality.limits import Overrides, limits
from edgewright_controller.world import SourceFact, World


class PlannedBuilds:
    """The builds of these models for these profiles, however many devices want them.

    `by_key` has them all, `searches` where each `quantization = "auto"` stands, by model and profile.
    """

    def __init__(self, manifest: Manifest, world: World, used: AbstractSet[tuple[str, str]]) -> None:
        """`used`: model and profile of every device's assignment. Raises PlanError."""
        self._manifest, self._world = manifest, world
        self.by_key: dict[str, Build] = {}
        self.searches: dict[tuple[str, str], Choosing] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._profiles: dict[tuple[str, str], Profile] = {}
        for model, profile in sorted(used):
            self._add_build(model, profile)
        self.by_key = {key: self._judged(build) for key, build in self.by_key.items()}

    @property
    def used(self) -> AbstractSet[tuple[str, str]]:
        """Model and profile of each pair that has a build, in order."""
        return self._keys.keys()

    def key(self, model: str, profile: str) -> str:
        """The key of their build."""
        return self._keys[model, profile]

    def build(self, model: str, profile: str) -> Build:
        """Their build."""
        return self.by_key[self.key(model, profile)]

    def profile(self, model: str, profile: str) -> Profile:
        """The profile with the precision that was found for it, where the manifest names none."""
        return self._profiles[model, profile]

    def preparations(self) -> tuple[Preparation, ...]:
        """What has to be done before the missing builds, by model."""
        models = {build.model for build in self.by_key.values() if not build.cached and not build.recipe.prebuilt}
        todo = {model: self._world.to_prepare[model] for model in sorted(models) if model in self._world.to_prepare}
        return tuple(Preparation(model, one.steps, one.fetch_bytes) for model, one in todo.items())

    def _judged(self, build: Build) -> Build:
        """The build with what its profiles want of it, and what is known of that."""
        wanted: dict[Overrides, list[str]] = {}
        for name in build.profiles:
            wanted.setdefault(self._manifest.profiles[name].overrides, []).append(f"profiles.{name}")
        build = replace(build, quality=tuple(wanted))
        if build.recipe.prebuilt or not self._world.gated:
            return build
        measures = self._world.measures.get(build.key)
        refused: list[str] = []
        settled = measures is not None
        for overrides, profiles in wanted.items():
            if measures is None:
                # Known before it is built, which would be for nothing.
                words = verdict.words(verdict.unproven(build.recipe.unproven, overrides.allow_unproven))
                refused += [f"{', '.join(profiles)}: {line}" for line in words]
                continue
            limit = limits(measures.runtime, measures.precision, overrides)
            settled = settled and verdict.is_settled(measures, limit)
            refused += [f"{', '.join(profiles)}: {line}" for line in verdict.words(verdict.judge(measures, limit))]
        if not settled or refused:
            return replace(
                build, cached=False, artifact="", refused=tuple(refused) if settled or measures is None else ()
            )
        return build

    def _add_build(self, model: str, profile_name: str) -> None:
        profile = self._manifest.profiles[profile_name]
        source = self._source(model, profile_name)
        if source is None:
            self._add_provisional(model, profile_name)
            return

        def key_of(recipe: Recipe) -> str:
            return build_key(source.digest, recipe, self._versions(recipe), source.calibration)

        tried = False
        if profile.is_auto:
            found = choosing(model, profile_name, profile, source, self._world, key_of=key_of)
            if found.recipe is None:
                raise PlanError(found.failure)
            self.searches[model, profile_name] = found
            recipe, tried = found.recipe, found.search.chosen is None
        else:
            recipe = recipe_of(profile)
        if source.model is not None:
            try:
                check_model(recipe, source.model)
            except RecipeError as error:
                raise PlanError(f"profiles.{profile_name}.{error}") from error
        key = key_of(recipe)
        self._keys[model, profile_name] = key
        self._profiles[model, profile_name] = concrete(profile, recipe)
        if key in self.by_key:
            known = self.by_key[key]
            profiles = tuple(sorted({*known.profiles, profile_name}))
            self.by_key[key] = replace(known, profiles=profiles, tried=known.tried and tried)
            return
        done = self._world.builds.get(key)
        self.by_key[key] = Build(
            key=key,
            model=model,
            profiles=(profile_name,),
            recipe=recipe,
            source=profile.prebuilt or self._manifest.models[model].source,
            cached=done is not None,
            artifact=done.artifact if done else "",
            size_bytes=done.size_bytes if done else _predicted(recipe, source),
            tried=tried,
        )

    def _add_provisional(self, model: str, profile_name: str) -> None:
        """A build of which nothing is known but that it will be wanted, once its source is here."""
        profile = self._manifest.profiles[profile_name]
        recipe = Recipe(profile.runtime, AUTO) if profile.is_auto else recipe_of(profile)
        key = f"{model} {profile_name}"
        self._keys[model, profile_name] = key
        self._profiles[model, profile_name] = profile
        source = self._manifest.models[model].source
        self.by_key[key] = Build(key, model, (profile_name,), recipe, source, False, "", 0, provisional=True)

    def _source(self, model: str, profile_name: str) -> SourceFact | None:
        """None while only preparing it would tell."""
        prebuilt = self._manifest.profiles[profile_name].prebuilt
        found = self._world.sources.get(model) if prebuilt is None else self._world.prebuilt.get(prebuilt)
        if found is None and (prebuilt is not None or model not in self._world.to_prepare):
            what = f"models.{model}.source" if prebuilt is None else f"profiles.{profile_name}.prebuilt"
            raise PlanError(f"{what}: was not looked at")
        return found

    def _versions(self, recipe: Recipe) -> Mapping[str, str]:
        if recipe.prebuilt:
            return {}
        if recipe.toolchain not in self._world.toolchains:
            raise PlanError(f"the versions of the {recipe.toolchain} toolchain are not known")
        return self._world.toolchains[recipe.toolchain]


def _predicted(recipe: Recipe, source: SourceFact) -> int:
    if recipe.prebuilt or source.model is None:
        return source.bytes if recipe.prebuilt else 0
    return artifact_size.predicted_bytes(recipe, source.model, source.beside_bytes)
