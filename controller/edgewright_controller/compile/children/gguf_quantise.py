"""Unquantised GGUF → GGUF of a llama.cpp file type, in one call of llama.cpp.

Request: {"source": file, "out": file, "ftype": "Q4_K_M", "threads": 1, "pure": false}
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
    params.pure = request["pure"]
    llama_cpp.llama_backend_init()
    status = llama_cpp.llama_model_quantize(
        os.fsencode(request["source"]), os.fsencode(request["out"]), ctypes.byref(params)
    )
    if status != 0:
        raise StageError(f"llama.cpp refused to quantise to {ftype} (status {status})")
    return {}


if __name__ == "__main__":
    sys.exit(run(quantise))
