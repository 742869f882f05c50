"""Checkpoint folder → MLX folder, by mlx-lm.

Request: {"source": folder, "out": folder that does not exist, "arguments": keyword arguments of mlx_lm.convert}.
The source's config.json is already the cured one (see compile/mlx_config.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import architecture
from stage import Say, run


def convert(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for MLX")
    # transformers would load torch where it is installed; a conversion by mlx-lm has no use for it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import mlx_lm

    try:
        mlx_lm.utils._get_classes(json.loads(Path(request["source"], "config.json").read_bytes()))
    except ValueError as error:
        raise architecture.unknown("mlx-lm", request["source"]) from error
    say(0.2, "converting")
    mlx_lm.convert(request["source"], mlx_path=request["out"], trust_remote_code=False, **request["arguments"])
    # A model card that names nobody's model; the artifact's provenance is signed elsewhere.
    Path(request["out"], "README.md").unlink(missing_ok=True)
    return {}


if __name__ == "__main__":
    sys.exit(run(convert))
