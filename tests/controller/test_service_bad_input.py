"""What an operator can get wrong: one clear line each, and nothing changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright_contract.v1 import operator_pb2
from tests.controller import checkpoints
from tests.controller.service_rig import Controller, controller, manifest, result, words


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def refused(fleet: Controller, text: str, folder: str) -> grpc.aio.AioRpcError:
    """How the controller refuses to plan this, and to apply it."""
    errors = []
    for call in (
        fleet.operator.Plan(operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=folder), timeout=10),
        anext(
            aiter(
                fleet.operator.Apply(
                    operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=folder), timeout=10
                )
            )
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call
        errors.append(refusal.value)
    assert words(errors[0]) == words(errors[1])
    return errors[0]


async def test_each_fault_of_a_manifest_is_one_line_with_file_and_key(fleet: Controller, tmp_path: Path) -> None:
    text = manifest(tmp_path, ["jetson-01"])
    for wrong, expected in (
        (text.replace("accelerator", "acelerator"), "fleet.toml: profiles.jetson.acelerator: unknown key"),
        (text.replace('profile = "jetson"', 'profile = "jetsun"'), 'there is no profile "jetsun"'),
        (text.replace("plant-7", "plant-8"), "fleet.name: 'plant-8'; this controller's fleet is 'plant-7'"),
        (text.replace("model-7.gguf", "gone.gguf"), "fleet.toml: profiles.jetson.prebuilt:"),
    ):
        error = await refused(fleet, wrong, str(tmp_path))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert expected in words(error), words(error)
    assert (await refused(fleet, text, "here")).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_source_that_is_no_model_is_named(fleet: Controller, tmp_path: Path) -> None:
    await fleet.enrol("jetson-01")
    text = manifest(tmp_path, ["jetson-01"]).replace('quantization = "prebuilt"', 'quantization = "Q8_0"')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("prebuilt"))
    error = await refused(fleet, text, str(tmp_path))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words(error).startswith(f"fleet.toml: models.tiny.source: {tmp_path / 'unused'}: there is no such folder")
    (tmp_path / "unused").mkdir()
    (tmp_path / "unused" / "notes.txt").write_text("hello")
    assert "not a model" in words(await refused(fleet, text, str(tmp_path)))
    (tmp_path / "unused" / "config.json").write_text("{}")
    (tmp_path / "unused" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "safetensors" in words(await refused(fleet, text, str(tmp_path)))


async def test_a_release_too_large_for_a_device_is_refused_in_bytes(fleet: Controller, tmp_path: Path) -> None:
    await fleet.enrol("jetson-01")
    text = manifest(tmp_path, ["jetson-01"]).replace('memory = "8GB"', 'memory = "1MB"')
    planned = await fleet.operator.Plan(
        operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(tmp_path)), timeout=10
    )
    assert [misfit.device for misfit in planned.misfits] == ["jetson-01"]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await fleet.apply(text, tmp_path)
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "jetson-01" in words(refusal.value)
    assert "bytes more" in words(refusal.value)


async def test_the_context_of_a_prebuilt_model_is_counted_when_its_checkpoint_is_at_hand(
    fleet: Controller, tmp_path: Path
) -> None:
    await fleet.enrol("jetson-01")
    text = manifest(tmp_path, ["jetson-01"]).replace('memory = "8GB"', 'memory = "64MB"')
    text = text.replace('prebuilt = "', 'options = { context = 1048576 }\nprebuilt = "')
    asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
    without = await fleet.operator.Plan(asked, timeout=10)
    assert list(without.misfits) == []
    assert any("memory for its context is not counted" in warning for warning in without.warnings)
    checkpoints.write(tmp_path / "unused")
    counted = await fleet.operator.Plan(asked, timeout=10)
    assert [(misfit.device, misfit.what) for misfit in counted.misfits] == [("jetson-01", "memory")]
    assert not any("is not counted" in warning for warning in counted.warnings)


async def test_a_device_that_is_not_enrolled_and_too_small_is_a_warning(fleet: Controller, tmp_path: Path) -> None:
    text = manifest(tmp_path, ["jetson-01"]).replace('memory = "8GB"', 'memory = "1MB"')
    events = await fleet.apply(text, tmp_path)
    assert result(events).succeeded
    warnings = [warning for event in events for warning in event.plan.warnings]
    assert any(warning.startswith("jetson-01: memory: needs ") for warning in warnings), warnings


async def test_a_device_that_is_not_enrolled_is_planned_and_left_alone(fleet: Controller, tmp_path: Path) -> None:
    ended = result(await fleet.apply(manifest(tmp_path, ["jetson-01"]), tmp_path))
    assert ended.succeeded
    assert "not enrolled yet: jetson-01" in ended.summary


async def test_status_of_an_unknown_device_names_it(fleet: Controller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await fleet.operator.Status(operator_pb2.StatusRequest(devices=["mac-09"]), timeout=10)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'mac-09' is not enrolled" in words(refusal.value)


async def test_a_rollback_of_a_fleet_that_serves_nothing_says_so(fleet: Controller) -> None:
    await fleet.enrol("jetson-01")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await anext(aiter(fleet.operator.Rollback(operator_pb2.RollbackRequest(), timeout=10)))
    assert words(refusal.value) == (
        "nothing to roll back: no device has a release; `edgewright status` shows what each has"
    )


async def test_tail_without_a_broker_says_so(fleet: Controller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await anext(aiter(fleet.operator.Tail(operator_pb2.TailRequest(), timeout=10)))
    assert "without a broker" in words(refusal.value)
