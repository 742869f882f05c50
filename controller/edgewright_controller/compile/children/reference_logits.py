"""Checkpoint folder → its logits for chunks of token ids, by transformers in float32.

Request: {"source": folder, "chunks": [[id, …], …], "out": file, "threads": 1}
Result: {"vocabulary": columns of the file}
"""

from __future__ import annotations

import os
import sys
from typing import Any

from stage import Say, run


def reference(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading the source in float32")
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(request["threads"])
    model = AutoModelForCausalLM.from_pretrained(
        request["source"], dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    ).eval()
    chunks = request["chunks"]
    with open(request["out"], "wb") as out, torch.inference_mode():
        for number, chunk in enumerate(chunks):
            logits = model(torch.tensor([chunk]), use_cache=False).logits[0].float().numpy()
            out.write(logits.astype("<f4", copy=False).tobytes())
            say((number + 1) / len(chunks), f"chunk {number + 1} of {len(chunks)}")
        out.flush()
        os.fsync(out.fileno())
    return {"vocabulary": int(logits.shape[1])}


if __name__ == "__main__":
    sys.exit(run(reference))
