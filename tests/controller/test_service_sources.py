"""Plans and applies of models that have to be fetched: what is told before and after, and who goes on without them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile.sources import credentials
from tests.controller import checkpoints, far_places, source_rig
from tests.controller.far_places import Hub
from tests.controller.service_rig import Controller, controller, manifest, result, words

MODELS = """
[models.{name}]
source = "{source}"
{more}
[groups.{name}]
model = "{name}"
profile = "built"
devices = ["{name}-01"]
[devices.{name}-01]
"""
PROFILE = """
[profiles.built]
runtime = "gguf"
quantization = "Q8_0"
accelerator = "cpu"
memory = "8GB"
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with far_places.hub() as place:
        yield place


@pytest.fixture
async def fleet(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Controller]:
    """A controller with the hub at hand, and a toolchain that cannot build."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://{hub.host}")
    monkeypatch.setenv("TEST_HUB_TOKEN", "the-token")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -I ]; then exec {sys.executable} "$@"; fi\necho no converter >&2\nexit 7\n'
    )
    python.chmod(0o755)
    named = credentials.parse({"hub": {"for": ["hf://acme/"], "token": {"env": "TEST_HUB_TOKEN"}}})
    interpreters = {"gguf": str(python), "mlx": sys.executable, "onnx": sys.executable}
    async with controller(tmp_path / "state", interpreters=interpreters, credentials=named) as running:
        yield running


async def test_a_model_of_the_hub_is_planned_fetched_and_then_known(
    hub: Hub, fleet: Controller, tmp_path: Path
) -> None:
    hub.private.add("acme/tiny")
    commit = hub.push("acme/tiny", source_rig.files_of(checkpoints.write(tmp_path / "model")))
    text = manifest(tmp_path, ["jetson-01"]) + PROFILE
    text += MODELS.format(name="far", source="hf://acme/tiny", more='credentials = "hub"')
    asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
    before = await fleet.operator.Plan(asked, timeout=60)
    assert [(one.model, list(one.steps)) for one in before.sources] == [("far", ["fetch hf://acme/tiny@main"])]
    assert before.sources[0].fetch_bytes > 0
    assert {build.model: bool(build.build_key) for build in before.builds} == {"far": False, "tiny": True}
    assert any(warning.startswith("models.far: hf://acme/tiny@main moves") for warning in before.warnings)
    assert not hub.store.gets("model.safetensors"), "a plan fetches no weights"

    events = await fleet.apply(text, tmp_path, build_only=True)
    stages = [event.build.stage for event in events if event.build.build_key == "source of far"]
    assert stages[-1] == "done"
    # The toolchain of this test builds nothing; the prebuilt model beside it was made all the same.
    assert "gguf_convert" in result(events).summary
    assert any(event.build.model == "tiny" and event.build.stage == "done" for event in events)

    after = await fleet.operator.Plan(asked, timeout=60)
    assert not after.sources
    assert all(build.build_key for build in after.builds)
    assert {build.model: build.cached for build in after.builds} == {"far": False, "tiny": True}
    assert not any(str(event).count("the-token") for event in events)
    assert b"the-token" not in source_rig.everything_written(tmp_path / "state")
    assert commit.encode() in source_rig.everything_written(tmp_path / "state" / "sources")


async def test_a_model_that_cannot_be_fetched_holds_up_no_other(hub: Hub, fleet: Controller, tmp_path: Path) -> None:
    hub.push("acme/broken", source_rig.files_of(checkpoints.write(tmp_path / "model")))
    text = manifest(tmp_path, ["jetson-01"]) + PROFILE + MODELS.format(name="far", source="hf://acme/broken", more="")
    hub.cuts["tokenizer.json"] = [0] * 12  # more often than the hub's library tries
    try:
        events = await fleet.apply(text, tmp_path, build_only=True)
    finally:
        hub.cuts.clear()
    assert "fleet.toml: models.far.source: the hub cannot be reached" in result(events).summary
    assert any(event.build.model == "tiny" and event.build.stage == "done" for event in events)
    assert [event.build.stage for event in events if event.build.model == "far"][-1] == "failed"


async def test_names_that_cannot_be_had_are_said_before_anything_begins(
    hub: Hub, fleet: Controller, tmp_path: Path
) -> None:
    more = 'credentials = "nobody"'
    text = manifest(tmp_path, ["jetson-01"]) + PROFILE
    text += MODELS.format(name="far", source="hf://acme/none", more="")
    text += MODELS.format(name="farther", source="hf://acme/none", more=more)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fleet.apply(text, tmp_path)
    said = words(refused.value).splitlines()
    assert said[0].startswith("fleet.toml: models.far.source: the hub has no hf://acme/none")
    assert said[1].startswith("fleet.toml: models.farther.credentials: 'nobody': the controller's settings have hub")
