"""Unquantised GGUF → GGUF of a llama.cpp file type, in one call of llama.cpp.

Request: {"source": file, "out": file, "ftype": "Q4_K_M", "threads": 1, "options": {…}}; options: `pure`,
`output_tensor_type`, `token_embedding_type`, as llama.cpp's llama_model_quantize_params has them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from stage import Say, StageError, run

UNQUANTISED = {"F32": "LLAMA_FTYPE_ALL_F32"}


def quantise(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, f"quantising to {request['ftype']}")
    import llama_cpp

    ftype = request["ftype"]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, UNQUANTISED.get(ftype, f"LLAMA_FTYPE_MOSTLY_{ftype}"))
    params.nthread = request["threads"]
    options = request["options"]
    params.pure = options.get("pure", False)
    for key in ("output_tensor_type", "token_embedding_type"):
        if key in options:
            setattr(params, key, getattr(llama_cpp, f"GGML_TYPE_{options[key]}"))
    llama_cpp.llama_backend_init()
    status = llama_cpp.llama_model_quantize(
        os.fsencode(request["source"]), os.fsencode(request["out"]), ctypes.byref(params)
    )
    if status != 0:
        raise StageError(f"llama.cpp refused to quantise to {ftype} (status {status})")
    return {}


if __name__ == "__main__":
    sys.exit(run(quantise))
