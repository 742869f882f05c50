"""What tests of both ends share: the small model, and artifacts of it in the three formats.

The checkpoint comes from `make model`; the artifacts are built once by the real builder and kept under .cache/tests
by their build keys, so that only a changed recipe, toolchain or source builds again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A test that computes beside others on two cores may be kept waiting at any moment: no example has a deadline.
settings.register_profile("edgewright", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgewright")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo's checkpoint: SmolLM2-135M-Instruct as an ordinary folder of safetensors."""
    folder = ROOT / ".cache" / "demo" / "smollm2"
    if not (folder / "config.json").is_file():
        pytest.fail(f"{folder} is missing: run `make model`, or `make test` which does")
    return folder


@pytest.fixture(scope="session")
def tiny_models() -> Path:
    """A folder with tiny checkpoints, by the names of tests.models.NAMES; `make test-models` makes them, or this."""
    from tests import models

    return models.folder()


@pytest.fixture(scope="session")
def demo_artifacts(demo_model: Path) -> Mapping[str, Path]:
    """Runtime → artifact folder, as demo.toml has them."""
    from tests.artifacts import build_all

    return asyncio.run(build_all(demo_model, ROOT / "manifests" / "demo.toml", ROOT / ".cache" / "tests"))


@pytest.fixture(scope="session")
def soak() -> int:
    """How many times longer a long test runs: 1 in `make test`, more in `make soak`."""
    return 50 if os.environ.get("EDGEWRIGHT_SOAK") else 1
