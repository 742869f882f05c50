"""Specs and settings for the echo engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_contract.engine import EngineSpec

SETTINGS = EngineSettings(engine=str(Path(__file__).with_name("echo_engine.py")))
ALL = {"gguf": SETTINGS}


def artifact(folder: Path, **how: Any) -> Path:
    """An artifact for the echo engine; `how` as in echo_engine.py."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "echo.json").write_text(json.dumps(how))
    return folder


def spec(folder: Path, *, model: str = "echo", accelerator: str = "cpu", **how: Any) -> EngineSpec:
    """A spec for an artifact made with `how`."""
    return EngineSpec("gguf", str(artifact(folder, **how)), model, accelerator)


def question(text: str, **more: Any) -> dict[str, Any]:
    """A request."""
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **more}
