"""Saying which architecture it is that a toolchain does not know. Imported by the stages that convert."""

from __future__ import annotations

import json
from pathlib import Path

from stage import StageError


def unknown(toolchain: str, source: str) -> StageError:
    """What to tell the operator: `toolchain` is its name, `source` the checkpoint's folder."""
    config = json.loads(Path(source, "config.json").read_bytes())
    name = (config.get("architectures") or ["?"])[0]
    return StageError(
        f"config.json: architectures: {toolchain} does not know {name} (model_type {config.get('model_type')!r});"
        " build it for another runtime, or with a newer toolchain under [toolchains]"
    )
