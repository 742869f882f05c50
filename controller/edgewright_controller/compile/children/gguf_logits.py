"""GGUF → how far its logits are from the source's, by llama.cpp itself, and the hyperparameters that it computes with.

Request: {"artifact": file, "reference": file of reference_logits.py, "vocabulary": its columns, "chunks": [[id, …], …],
"first": number of the first chunk to measure, "count": how many, "float32": whether the cache of keys and values is
float32 too, "threads": 1}
Result: {"chunks": [a quality.divergence.Chunk each], "hyperparameters": {…}, "rss_bytes": the most that was resident}
"""

from __future__ import annotations

import ctypes
import re
import sys
from typing import Any

import numpy as np
from logits import Reference, compare, peak_rss
from stage import Say, StageError, run

# What llama.cpp prints of a model that it has loaded is what it computes with; the file's metadata is not asked.
_PRINTED = re.compile(r"print_info: (\w+)\s+= (\S+)")
_NAMES = {
    "n_embd": "hidden",
    "n_layer": "layers",
    "n_head": "heads",
    "n_head_kv": "kv_heads",
    "n_embd_head_k": "head_dim",
    "n_ff": "inner",
    "n_vocab": "vocab",
    "n_swa": "sliding_window",
    "freq_base_train": "rope_base",
    "f_norm_rms_eps": "norm_epsilon",
}
_F32 = 0


def measure(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for llama.cpp")
    import llama_cpp

    words: list[str] = []

    @llama_cpp.llama_log_callback
    def listen(_level: int, text: bytes, _user: Any) -> None:
        words.append(text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))
    chunks = request["chunks"]
    longest = max(map(len, chunks))
    cache = {"type_k": _F32, "type_v": _F32} if request["float32"] else {}
    model = llama_cpp.Llama(
        request["artifact"],
        n_ctx=longest,
        n_batch=longest,
        n_ubatch=longest,
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        n_gpu_layers=0,
        flash_attn=False,
        logits_all=True,
        verbose=True,
        **cache,
    )
    sys.stderr.write("".join(words))
    reference = Reference(request["reference"], chunks, request["vocabulary"])
    measured = []
    numbers = range(request["first"], request["first"] + request["count"])
    for done, number in enumerate(numbers, 1):
        model.reset()
        model.eval(chunks[number])
        logits = np.asarray(model.scores[: len(chunks[number])])
        measured.append(compare(reference.of(number), logits, chunks[number]))
        say(done / len(numbers), f"chunk {number + 1} of {len(chunks)}")
    return {"chunks": measured, "hyperparameters": hyperparameters("".join(words)), "rss_bytes": peak_rss()}


def hyperparameters(words: str) -> dict[str, int | float]:
    """What llama.cpp printed of the loaded model, by the names of quality/hyperparameters.py."""
    found: dict[str, int | float] = {}
    for name, value in _PRINTED.findall(words):
        if name in _NAMES and _NAMES[name] not in found:
            try:
                found[_NAMES[name]] = int(value) if re.fullmatch(r"\d+", value) else float(value)
            except ValueError:
                continue  # a list, of a model whose layers differ: not comparable by one number
    # The file's window is printed for architectures, too, that llama.cpp computes without one.
    if re.search(r"print_info: is_swa_any\s+= 0", words):
        found["sliding_window"] = 0
    if "layers" not in found:
        raise StageError("llama.cpp did not print the model's hyperparameters; has its log changed its form?")
    return found


if __name__ == "__main__":
    sys.exit(run(measure))
