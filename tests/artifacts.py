"""The demo's three artifacts, built by the real builder and kept by build key under `cache`."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path

from edgewright_contract import digest
from edgewright_controller.compile import source as sources
from edgewright_controller.compile import toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder
from edgewright_controller.compile.recipe import recipe_of
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.manifest import parse


async def build_all(model: Path, manifest: Path, cache: Path) -> Mapping[str, Path]:
    """Runtime → artifact folder for each profile of `manifest`, whose runtimes must differ."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Tests run in several processes; the first builds, the others wait and find.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return await _build_all(model, manifest, cache)


async def _build_all(model: Path, manifest: Path, cache: Path) -> Mapping[str, Path]:
    store = ArtifactStore(cache / "store")
    builder = Builder(store, cache, toolchain.default_interpreters(), threads=2)
    source = sources.inspect(model)
    made = cache / "made"
    made.mkdir(exist_ok=True)
    artifacts = {}
    for profile in parse(manifest.read_text(), file=manifest.name).profiles.values():
        recipe = recipe_of(profile)
        key = build_key(source.digest, recipe, builder.versions(recipe.runtime))
        note = made / key
        if not (note.is_file() and digest.is_sha256(note.read_text()) and store.has(note.read_text())):
            built = await builder.build(source, recipe, key)
            note.write_text(built.bundle)
        artifacts[recipe.runtime] = store.path(note.read_text())
    return artifacts
