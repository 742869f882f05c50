"""What a release weighs on a device, and what is said when there is no room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgewright_controller import fit
from edgewright_controller.fit import Load, What
from edgewright_controller.manifest import Profile
from edgewright_controller.world import InventoryFact
from tests.controller.small_fleet import SMOLLM2, manifest

GB = 10**9


def _profile(runtime: str, quantization: str, accelerator: str, **options: int) -> Profile:
    written = ", ".join(f"{key} = {value}" for key, value in options.items())
    return manifest(
        ('runtime = "gguf"', f'runtime = "{runtime}"'),
        ('"Q4_K_M"', f'"{quantization}"'),
        ('"cuda"', f'"{accelerator}"'),
        ("context = 1024", written),
    ).profiles["jetson"]


def test_the_cache_is_counted_by_heads_context_and_requests() -> None:
    one = fit.kv_bytes(SMOLLM2, _profile("gguf", "Q4_K_M", "cuda", context=1024))
    assert one == 2 * 30 * 3 * 64 * 1024 * 2
    assert fit.kv_bytes(SMOLLM2, _profile("gguf", "Q4_K_M", "cuda", context=4096, parallel=3)) == 12 * one
    # In float32 a value takes four bytes in place of two.
    assert fit.kv_bytes(SMOLLM2, _profile("onnx", "int4", "cpu", context=1024)) == 2 * one
    assert fit.kv_bytes(SMOLLM2, _profile("mlx", "4bit", "metal", context=1024)) == one


@pytest.mark.parametrize(
    ("runtime", "quantization", "options", "artifact", "measured"),
    [
        # Peak resident bytes of a process that loaded the demo's model and filled its context: one thread of a CPU.
        ("gguf", "Q4_K_M", {"context": 1024}, 105_453_920, 212 * 10**6),
        ("gguf", "Q4_K_M", {"context": 4096}, 105_453_920, 285 * 10**6),
        ("gguf", "Q4_K_M", {"context": 4096, "parallel": 2}, 105_453_920, 379 * 10**6),
        ("onnx", "int4", {"context": 1024}, 203_285_189, 465 * 10**6),
        ("onnx", "int4", {"context": 2048}, 203_285_189, 755 * 10**6),
        ("onnx", "int4", {"context": 4096}, 203_285_189, 1331 * 10**6),
    ],
)
def test_memory_is_predicted_a_little_above_what_was_measured(
    runtime: str, quantization: str, options: dict[str, int], artifact: int, measured: int
) -> None:
    profile = _profile(runtime, quantization, "cpu", **options)
    assert measured < fit.memory_bytes(profile, artifact, SMOLLM2) < 1.25 * measured


def test_mlx_is_predicted_above_what_was_measured_with_a_short_prompt() -> None:
    profile = _profile("mlx", "4bit", "cpu", context=1024)
    assert fit.memory_bytes(profile, 79_363_352, SMOLLM2) > 503 * 10**6


def test_without_facts_about_the_model_only_the_cache_is_missing() -> None:
    profile = _profile("gguf", "Q4_K_M", "cpu", context=1024)
    assert 10**8 < fit.memory_bytes(profile, 10**8, None) < fit.memory_bytes(profile, 10**8, SMOLLM2)


def _misfits(
    new: Load, old: Load | None = None, inventory: InventoryFact | None = None, disk: int | None = None
) -> list[fit.Misfit]:
    profile = _profile("gguf", "Q4_K_M", "cuda", context=1024).model_copy(
        update={"memory_bytes": 8 * GB, "disk_bytes": disk}
    )
    return fit.misfits("jetson-01", profile, granted_by="profiles.jetson grants", new=new, old=old, inventory=inventory)


def test_what_fits_exactly_is_no_misfit() -> None:
    assert _misfits(Load(8 * GB, GB), disk=GB) == []
    assert _misfits(Load(5 * GB, GB), Load(3 * GB, GB), InventoryFact(8 * GB, GB), disk=2 * GB) == []


def test_a_misfit_says_how_many_bytes_are_missing() -> None:
    (misfit,) = _misfits(Load(8 * GB + 1_234_567, GB))
    assert (misfit.what, misfit.needed_bytes, misfit.available_bytes) == (What.MEMORY, 8_001_234_567, 8 * GB)
    assert misfit.message == (
        "jetson-01: memory: needs 1,234,567 bytes more: 8,001,234,567, profiles.jetson grants 8,000,000,000"
    )


def test_both_versions_must_fit_during_the_swap() -> None:
    (misfit,) = _misfits(Load(5 * GB, GB), Load(4 * GB, GB))
    assert misfit.message == (
        "jetson-01: memory: needs 1,000,000,000 bytes more:"
        " 9,000,000,000 for both versions during the swap, profiles.jetson grants 8,000,000,000"
    )


def test_a_device_with_less_than_its_profile_promises_counts() -> None:
    (misfit,) = _misfits(Load(5 * GB, GB), inventory=InventoryFact(4 * GB, 100 * GB))
    assert misfit.message.endswith("needs 1,000,000,000 bytes more: 5,000,000,000, the device has 4,000,000,000")


def test_a_guess_is_called_one() -> None:
    (misfit,) = _misfits(Load(9 * GB, GB, known=False))
    assert "needs about 1,000,000,000 bytes more" in misfit.message


def test_disk_counts_both_versions_against_the_profile_and_the_new_one_against_what_is_free() -> None:
    (granted,) = _misfits(Load(GB, 3 * GB), Load(GB, 2 * GB), disk=4 * GB)
    assert (granted.what, granted.needed_bytes) == (What.DISK, 5 * GB)
    (free,) = _misfits(Load(GB, 3 * GB), Load(GB, 2 * GB), InventoryFact(64 * GB, 2 * GB))
    assert free.message == (
        "jetson-01: disk: needs 1,000,000,000 bytes more: 3,000,000,000, the device has free 2,000,000,000"
    )
    assert _misfits(Load(GB, 3 * GB), Load(GB, 2 * GB), InventoryFact(64 * GB, 3 * GB)) == []


def test_memory_and_disk_can_both_be_short() -> None:
    found = _misfits(replace(Load(9 * GB, 3 * GB)), inventory=InventoryFact(64 * GB, GB))
    assert [misfit.what for misfit in found] == [What.MEMORY, What.DISK]
