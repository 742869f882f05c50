"""Whether a LoRA adapter fits a checkpoint: by headers and configuration, without a toolchain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile.source import SourceError, inspect
from edgewright_controller.compile.sources import adapter
from tests.controller import checkpoints, source_rig

Q = "model.layers.0.self_attn.q_proj"
BASE = {"model.embed_tokens.weight": [4, 8], f"{Q}.weight": [8, 8], "model.layers.0.mlp.down_proj.weight": [8, 6]}
LORA = "base_model.model."
HONEST = {f"{LORA}{Q}.lora_A.weight": [2, 8], f"{LORA}{Q}.lora_B.weight": [8, 2]}


def _base(folder: Path, **config: Any) -> Path:
    data = checkpoints.safetensors(BASE)
    return checkpoints.write(folder, {"tie_word_embeddings": True} | config, model__safetensors=data)


def _adapter(folder: Path, tensors: dict[str, list[int]], **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(checkpoints.safetensors(tensors, "F32", 4))
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "x"}
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return folder


def test_an_adapter_whose_tensors_have_theirs_in_the_base_fits(tmp_path: Path) -> None:
    base = inspect(_base(tmp_path / "base"))
    adapter.refuse_misfit(adapter.inspect(_adapter(tmp_path / "a", HONEST, target_modules=["q_proj", "query"])), base)
    whole = HONEST | {f"{LORA}model.layers.0.mlp.down_proj.weight": [8, 6]}
    adapter.refuse_misfit(adapter.inspect(_adapter(tmp_path / "b", whole, target_modules="all-linear")), base)


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        ({}, {}, "no tensor in it"),
        ({f"{LORA}{Q}.hada_w1_a": [2, 8]}, {}, f"'{LORA}{Q}.hada_w1_a' is of no kind that is merged"),
        ({f"{LORA}{Q}.lora_A.weight": [2, 8]}, {}, "has not its other half"),
        (
            {f"{LORA}{Q}.lora_A.weight": [2, 16], f"{LORA}{Q}.lora_B.weight": [8, 2]},
            {},
            f"change 8×16 weights, {Q}.weight of the base has 8×8; it was made for another",
        ),
        ({f"{LORA}{Q}.lora_A.weight": [3, 8], f"{LORA}{Q}.lora_B.weight": [8, 2]}, {}, "do not go together"),
        (
            {name.replace("layers.0", "layers.7"): shape for name, shape in HONEST.items()},
            {},
            "has no model.layers.7.self_attn.q_proj.weight in the base to change; was it made for another?",
        ),
        (HONEST | {f"{LORA}lm_head.weight": [4, 8]}, {}, "shares between input and output; untie it first"),
        (HONEST | {f"{LORA}model.norm.weight": [8]}, {}, "has none in the base to replace"),
        (HONEST | {f"{LORA}model.layers.0.mlp.down_proj.weight": [8, 7]}, {}, "is 8×7, the base's 8×6"),
    ],
)
def test_an_adapter_for_another_base_is_refused_with_its_tensor(
    tmp_path: Path, tensors: dict[str, list[int]], config: dict[str, Any], says: str
) -> None:
    base, folder = inspect(_base(tmp_path / "base")), _adapter(tmp_path / "tuned", tensors, **config)
    with pytest.raises(SourceError) as refused:
        adapter.refuse_misfit(adapter.inspect(folder), base)
    assert str(refused.value).startswith(f"{folder / 'adapter_model.safetensors'}: ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type: 'IA3'; only LORA is merged"),
        ({"auto_mapping": {"base_model_class": "X"}}, "auto_mapping: the adapter needs its own code"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        adapter.inspect(_adapter(tmp_path / "tuned", HONEST, **config))


def test_a_pickle_is_no_adapter_nor_is_a_file_that_was_cut(tmp_path: Path) -> None:
    folder = _adapter(tmp_path / "tuned", HONEST)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"adapter_model\.safetensors: .*cut off"):
        adapter.inspect(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(SourceError, match=r"adapter_model\.bin: a pickle can run code"):
        adapter.inspect(folder)
    with pytest.raises(SourceError, match="there is no such folder"):
        adapter.inspect(tmp_path / "none")


async def test_an_adapter_that_does_not_fit_is_told_before_anything_is_merged(tmp_path: Path) -> None:
    wide = {name.replace("layers.0", "layers.1"): shape for name, shape in HONEST.items()}
    asked = source_rig.asked(_base(tmp_path / "base"), _adapter(tmp_path / "tuned", wide))
    with pytest.raises(SourceError, match="was it made for another") as refused:
        await source_rig.looked(source_rig.sources(tmp_path / "state"), asked)
    assert getattr(refused.value, "key", "") == "adapter"
