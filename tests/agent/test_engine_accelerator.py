"""Whether an engine computes where its release says."""

from __future__ import annotations

from dataclasses import replace

from edgewright_agent.engines import accelerator
from edgewright_contract.engine import EngineInfo, EngineSpec


def _info(kind: str, layers: int = 31, offloaded: int = 31) -> EngineInfo:
    return EngineInfo("xllamacpp", "1", kind, f"{kind}:0", layers, offloaded, 1024, ())


def _spec(**options: int) -> EngineSpec:
    return EngineSpec("gguf", "/a", "m", "cuda", options)


def test_an_engine_on_the_accelerator_passes() -> None:
    assert not accelerator.fault(_info("cuda"), _spec(), "cuda")
    assert not accelerator.fault(_info("cpu", 31, 0), _spec(), "cpu")


def test_a_silent_fallback_to_the_cpu_is_found() -> None:
    assert "made for cuda, but xllamacpp runs on cpu" in accelerator.fault(_info("cpu", 31, 0), _spec(), "cuda")


def test_layers_left_on_the_host_are_found_unless_the_release_asks_for_that() -> None:
    assert "put 20 of 31 layers on cuda" in accelerator.fault(_info("cuda", 31, 20), _spec(), "cuda")
    assert "put 20 of 31 layers on cuda" in accelerator.fault(_info("cuda", 31, 20), _spec(gpu_layers=99), "cuda")
    assert "put 20 of 31 layers on cuda" in accelerator.fault(_info("cuda", 31, 20), _spec(gpu_layers=-1), "cuda")
    assert not accelerator.fault(_info("cuda", 31, 20), _spec(gpu_layers=20), "cuda")


def test_a_runtime_that_counts_no_layers_is_believed_on_its_device() -> None:
    assert not accelerator.fault(_info("qnn", 0, 0), _spec(), "qnn")


def test_the_status_begins_with_the_plain_kind_and_keeps_the_runtimes_account() -> None:
    info = replace(_info("cpu"), device="llama.cpp: CPU_Mapped 99 MiB")
    assert accelerator.told(info) == "cpu (llama.cpp: CPU_Mapped 99 MiB)"
    assert accelerator.told(replace(info, device="")) == accelerator.told(replace(info, device="cpu")) == "cpu"


def test_a_long_account_is_shortened_and_the_kind_stays() -> None:
    told = accelerator.told(replace(_info("cuda"), device="llama.cpp: " + "CUDA0 4096 MiB, " * 12))
    assert told.startswith("cuda (llama.cpp: CUDA0 4096 MiB")
    assert told.endswith("…)")
    assert len(told) < 120
