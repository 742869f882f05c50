"""What a release may ask of llama.cpp reaches it, or is refused by its name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract import engine

CHILDREN = Path(engine.__file__).parents[2] / "agent" / "edgewright_agent" / "engines" / "children"
ASKED: dict[str, Any] = {
    **{"context": 512, "parallel": 2, "threads": 3, "gpu_layers": 7, "flash_attention": True, "cache_type_k": "q8_0"},
    **{"cache_type_v": "q4_0", "batch_size": 256, "ubatch_size": 64, "mmap": False, "mlock": True, "main_gpu": 1},
    **{"tensor_split": "3,1", "split_mode": "row"},
}


@pytest.fixture(scope="module")
def options() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CHILDREN))
        yield importlib.import_module("llama_options")


def test_the_contract_names_every_option(options: Any) -> None:
    assert set(options.KNOWN) == set(engine.OPTIONS)
    assert set(ASKED) == set(options.KNOWN) - {"chat_template"}


@pytest.mark.toolchain
def test_every_option_reaches_llama_cpps_server(options: Any) -> None:
    xllamacpp = importlib.import_module("xllamacpp")
    child = importlib.import_module("xllamacpp_engine")
    spec = {"model": "m", "accelerator": "cuda", "options": ASKED}
    params = child._params(xllamacpp, spec, "model.gguf")
    assert (params.n_ctx, params.n_parallel, params.cpuparams.n_threads) == (1024, 2, 3)
    assert (params.n_gpu_layers, params.main_gpu, params.tensor_split[:3]) == (7, 1, [3.0, 1.0, 0.0])
    assert (params.n_batch, params.n_ubatch) == (256, 64)
    assert xllamacpp.ggml_type(params.cache_type_k) == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert xllamacpp.ggml_type(params.cache_type_v) == xllamacpp.ggml_type.GGML_TYPE_Q4_0
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert params.load_mode == xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MLOCK
    assert params.split_mode == xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_ROW


@pytest.mark.toolchain
def test_numbers_of_types_are_llama_cpps(options: Any) -> None:
    xllamacpp = importlib.import_module("xllamacpp")
    for name, number in options.CACHE_TYPES.items():
        assert xllamacpp.ggml_type(number).name == f"GGML_TYPE_{name.upper()}"
    assert {mode.name.rpartition("_")[2].lower(): int(mode) for mode in xllamacpp.llama_split_mode} == {
        **options.SPLIT_MODES,
        "tensor": 3,
    }


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"speculation": True}, r"options\.speculation: this engine does not know it; update Edgewright"),
        ({"cache_type_k": "q2_k"}, r"options\.cache_type_k: 'q2_k'; there are f16, q4_0"),
        ({"tensor_split": "3;1"}, r"options\.tensor_split: '3;1' is no list of shares"),
        ({"split_mode": "diagonal"}, r"options\.split_mode: 'diagonal'; there are none, layer, row"),
        ({"cache_type_v": "q8_0", "flash_attention": False}, r"options\.cache_type_v: .* needs flash_attention = true"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(options: Any, asked: dict[str, Any], words: str) -> None:
    options.LlamaOptions({}, "cpu")
    with pytest.raises(ValueError, match=words):
        options.LlamaOptions(asked, "cpu")
