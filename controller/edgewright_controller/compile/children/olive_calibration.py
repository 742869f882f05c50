"""A calibration text, cut into pieces, as Olive's passes read data. Imported by the stages that run Olive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stage import StageError

NAME = "calibration"


def pieces(text: str, source: str, samples: int, length: int) -> list[list[int]]:
    """Up to `samples` pieces of `length` ids, by the checkpoint's own tokenizer, from all over the text.

    Raises StageError when the text gives fewer than `samples`.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    there = len(ids) // length
    if there < samples:
        raise StageError(
            f"the calibration text gives {len(ids):,} tokens of this model, {there} pieces of {length};"
            f" the recipe wants {samples}: name a longer text as `calibration` of the model, or lower"
            " recipe.calibration_samples or recipe.calibration_length"
        )
    return [ids[number * there // samples * length :][:length] for number in range(samples)]


def data_configs(request: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Olive's `data_configs` for a request: the text of its `calibration`, where there is one."""
    return [data_config(request["calibration"], source)] if request["calibration"] else []


def data_config(request: dict[str, Any], source: str) -> dict[str, Any]:
    """Make the pieces of `request` (text: file, samples, length) known to Olive; the config by which passes read them.

    Nothing is looked up: the data set is this process's own.
    """
    import torch
    from olive.data.registry import Registry

    text = Path(request["text"]).read_text("utf-8")
    cut = [torch.tensor(ids) for ids in pieces(text, source, request["samples"], request["length"])]

    @Registry.register_dataset("edgewright_calibration")
    def dataset(**_: Any) -> list[Any]:
        return [({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 0) for ids in cut]

    return {
        "name": NAME,
        "type": "DataContainer",
        "load_dataset_config": {"type": "edgewright_calibration"},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "skip_post_process"},
        "dataloader_config": {"type": "default_dataloader", "batch_size": 1},
    }
