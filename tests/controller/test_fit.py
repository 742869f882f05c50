"""What a release weighs on a device, and what is said when there is no room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgewright_controller import device_memory, fit, fit_advice
from edgewright_controller.compile.source import ModelFacts
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
    one = device_memory.cache_bytes(SMOLLM2, _profile("gguf", "Q4_K_M", "cuda", context=1024))
    assert one == 2 * 30 * 3 * 64 * 1024 * 2
    assert device_memory.cache_bytes(SMOLLM2, _profile("gguf", "Q4_K_M", "cuda", context=4096, parallel=3)) == 12 * one
    # In float32 a value takes four bytes in place of two.
    assert device_memory.cache_bytes(SMOLLM2, _profile("onnx", "int4", "cpu", context=1024)) == 2 * one
    assert device_memory.cache_bytes(SMOLLM2, _profile("mlx", "4bit", "metal", context=1024)) == one


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


QWEN_05B = replace(
    SMOLLM2,
    model_type="qwen2",
    parameters=494_032_768,
    hidden=896,
    layers=24,
    heads=14,
    kv_heads=2,
    head_dim=64,
    vocab=151_936,
    inner=4864,
)
QWEN_15B = replace(
    QWEN_05B, parameters=1_543_714_304, hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128, inner=8960
)


@pytest.mark.parametrize(
    ("model", "quantization", "context", "artifact", "measured"),
    [
        # Peak of xllamacpp's process with a prompt of more than one step, random weights, a CPU with AVX2.
        (QWEN_05B, "Q4_0", 1024, 350_655_776, 678_846_464),
        (QWEN_05B, "Q4_0", 8192, 350_655_776, 766_894_080),
        (QWEN_05B, "Q8_0", 1024, 529_569_056, 664_293_376),
        (QWEN_15B, "Q4_0", 1024, 933_455_840, 1_829_838_848),
    ],
)
def test_large_ggufs_are_predicted_within_three_percent(
    model: ModelFacts, quantization: str, context: int, artifact: int, measured: int
) -> None:
    profile = _profile("gguf", quantization, "cpu", context=context)
    assert 0.97 * measured < fit.memory_bytes(profile, artifact, model) < 1.05 * measured


def test_the_parts_are_what_llama_cpp_prints_of_its_buffers() -> None:
    mib = 1 << 20
    for model, quantization, context, repacked, cache, compute in (
        (QWEN_05B, "Q4_0", 1024, 191.95, 12.0, 38.27),
        (QWEN_05B, "Q4_0", 8192, 191.95, 96.0, 45.27),
        (QWEN_05B, "Q8_0", 1024, 0, 12.0, 38.27),
        (QWEN_15B, "Q4_0", 1024, 702.84, 28.0, 68.52),
    ):
        found = device_memory.predict(_profile("gguf", quantization, "cpu", context=context), 10**9, model)
        assert found.second / mib == pytest.approx(repacked, rel=0.005)
        assert found.cache / mib == pytest.approx(cache)
        # With the logits of one token, which stand in a buffer of their own.
        assert (found.compute - 4 * model.vocab) / mib == pytest.approx(compute, abs=0.05)


def test_what_an_artifact_was_found_to_be_counts_more_than_its_recipe() -> None:
    profile = _profile("gguf", "Q4_0", "cpu", context=1024)
    assert device_memory.predict(profile, 10**9, QWEN_05B, {"Q8_0": 10**9}).second == 0
    assert device_memory.predict(profile, 10**9, QWEN_05B, {"Q4_0": 8 * 10**8}).second == 450_000_000
    assert device_memory.predict(_profile("gguf", "Q4_0", "cuda", context=1024), 10**9, QWEN_05B).second == 0


def test_layers_with_a_window_cache_no_more_than_it() -> None:
    gemma = replace(SMOLLM2, model_type="gemma3_text", layers=26, window=512, windowed_layers=22)
    each = 2 * 3 * 64 * 2
    profile = _profile("gguf", "Q8_0", "cpu", context=8192)
    # llama.cpp keeps a step of the prompt besides the window.
    assert device_memory.cache_bytes(gemma, profile) == each * (4 * 8192 + 22 * 1024)
    assert device_memory.cache_bytes(gemma, _profile("mlx", "4bit", "metal", context=8192)) == each * (
        4 * 8192 + 22 * 512
    )
    # It has no such cache for Mistral, nor has onnxruntime-genai for anybody.
    mistral = replace(gemma, model_type="mistral", windowed_layers=26)
    assert device_memory.cache_bytes(mistral, profile) == each * 26 * 8192
    assert device_memory.cache_bytes(gemma, _profile("onnx", "int4", "cpu", context=8192)) == 2 * each * 26 * 8192


def test_mlx_is_predicted_within_five_percent_of_what_was_measured() -> None:
    profile = _profile("mlx", "4bit", "cpu", context=64)
    assert fit.memory_bytes(profile, 79_363_352, SMOLLM2) == pytest.approx(245_694_464, rel=0.05)


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


def test_the_largest_recipe_that_would_fit_is_named() -> None:
    profile = _profile("gguf", "F16", "cpu", context=1024)
    whole = 2 * QWEN_15B.parameters

    def named(limit: int) -> str:
        return fit_advice.would_fit(profile, QWEN_15B, 3 << 20, whole, lambda memory, _disk: memory <= limit)

    assert named(3 * GB).startswith('quantization = "Q8_0" would fit: about ')
    small = named(13 * GB // 10)
    assert not small.startswith(('quantization = "Q8_0"', "no recipe"))
    assert "bytes of memory" in small
    assert named(GB // 10) == "no recipe of gguf would fit; shorten options.context, or choose a smaller model"


def test_only_recipes_for_the_accelerator_are_named() -> None:
    profile = _profile("onnx", "fp32", "cpu", context=256)
    advice = fit_advice.would_fit(profile, SMOLLM2, 3 << 20, 10**9, lambda _memory, disk: disk < 400_000_000)
    assert '"fp16"' not in advice
