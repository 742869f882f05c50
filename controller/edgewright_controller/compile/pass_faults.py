"""Whether Olive has the passes that a recipe adds, asked under its own interpreter before anything is built.

Olive takes seconds to load, so that passes it was found to have are kept as long as the toolchain is the same. What it
was found not to have is asked again: installing what a pass needs may change nothing that the toolchain is known by.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgewright_contract import canonical, digest, durable
from edgewright_controller.compile.backends import onnx
from edgewright_controller.compile.executor import Executor, StageJob
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.stage_bounds import Bounds

# What loading Olive, with torch and transformers, was measured to hold, rounded up.
_BOUNDS: Final = Bounds(expected_bytes=900 << 20, most_bytes=3 << 30, deadline_s=600.0)


async def find(recipe: Recipe, versions: Mapping[str, str], executor: Executor, kept: Path) -> str:
    """The first fault, as "recipe.passes.NAME.OPTION: words", empty when there is none. `versions` are those of the
    recipe's toolchain; what is known is kept in the folder `kept`. Raises StageFailed, OSError."""
    passes = recipe.options.get("passes") if recipe.runtime == "onnx" and not recipe.prebuilt else None
    if not passes:
        return ""
    request = {"passes": passes, **onnx.known_passes(), **onnx.accelerator(recipe)}
    file = kept / f"passes-{digest.of_bytes(canonical.encode({**request, 'versions': dict(versions)}))}.json"
    if file.exists():
        return ""
    durable.make_folder(kept)
    with tempfile.TemporaryDirectory(prefix=".asking-", dir=kept) as scratch, tempfile.TemporaryFile() as words:
        job = StageJob("olive_passes", recipe.runtime, request, _BOUNDS, threads=1)
        found = await executor.run(job, Path(scratch), words, lambda _done, _say: None)
    for name, option, fault in found["faults"]:
        return f"recipe.passes.{name}{'.' + option if option else ''}: {fault}"
    durable.write(file, json.dumps(request).encode())
    return ""
