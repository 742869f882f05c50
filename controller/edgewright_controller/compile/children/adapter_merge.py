"""Checkpoint + LoRA adapter → checkpoint, by PEFT. Only the weights are new: all other files are the base's own.

Request: {"base": folder, "adapter": folder, "out": folder, "dtype": "bf16", "weights": ["model.safetensors"],
          "beside": ["config.json", …]}
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from stage import Say, StageError, run

DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def merge(request: dict[str, Any], say: Say) -> dict[str, Any]:
    base, adapter, out = (Path(request[key]) for key in ("base", "adapter", "out"))
    say(0.0, "loading")
    # Only these of its files: transformers would take an adapter that lies there for a part of the model.
    staged = Path("base")
    staged.mkdir()
    for name in (*request["weights"], *request["beside"]):
        (staged / name).symlink_to(base / name)
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    # The same sums in the same order, however many processors there are.
    torch.set_num_threads(1)
    # In float32, so that the sum is rounded once and not each of its parts.
    model = AutoModelForCausalLM.from_pretrained(staged, dtype=torch.float32)
    config = PeftConfig.from_pretrained(adapter)
    config.inference_mode = True
    tuned: PeftModel = get_peft_model(model, config)
    say(0.4, "merging")
    weights = load_file(adapter / "adapter_model.safetensors")
    loaded = set_peft_model_state_dict(tuned, weights)
    _refuse(loaded.unexpected_keys, "the base has no place for {}")
    # Of the base itself everything is there already; what the adapter should have brought is not.
    brought = [name for name in loaded.missing_keys if ".lora_" in name or ".modules_to_save." in name]
    _refuse(brought, "the adapter lacks {}, which its configuration promises")
    try:
        merged = tuned.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StageError(f"the adapter cannot be merged: {str(error).splitlines()[0]}") from error
    say(0.7, "writing")
    merged.to(getattr(torch, DTYPES[request["dtype"]])).save_pretrained(out)
    for path in out.iterdir():
        if not path.name.startswith("model"):
            path.unlink()
    for name in request["beside"]:
        shutil.copyfile(base / name, out / name)
    for path in out.iterdir():
        path.chmod(0o644)
    return {}


def _refuse(names: list[str], why: str) -> None:
    if names:
        raise StageError(why.format(repr(sorted(names)[0])))


if __name__ == "__main__":
    sys.exit(run(merge))
