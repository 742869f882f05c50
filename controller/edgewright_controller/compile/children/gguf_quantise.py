"""Unquantised GGUF → GGUF of a llama.cpp file type, in one call of llama.cpp.

Request: {"source": file, "out": file, "ftype": "Q4_K_M", "threads": 1, "pure": false}, and what else there is to say:
{"imatrix": file of gguf_imatrix.py, "overrides": [[pattern, type], …], "output_tensor_type": "Q6_K",
"token_embedding_type": "Q4_K"}
Result: {}
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from typing import Any

import numpy as np
from stage import Say, StageError, run

UNQUANTISED = {"F32": "LLAMA_FTYPE_ALL_F32"}
# llama.cpp cannot round to these without an importance matrix, and none is measured of the embeddings.
MATRIX_ONLY = ("IQ2_XS", "IQ2_XXS", "IQ1_S")
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")


def quantise(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, f"quantising to {request['ftype']}")
    import llama_cpp

    ftype = request["ftype"]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, UNQUANTISED.get(ftype, f"LLAMA_FTYPE_MOSTLY_{ftype}"))
    params.nthread = request["threads"]
    params.pure = request["pure"]
    kept: list[Any] = []  # what llama.cpp points to must outlive the call
    if request.get("imatrix"):
        params.imatrix = _imatrix(llama_cpp, request["imatrix"], kept)
    rows = _rows(request["source"]) if _chosen(request) else {}
    for option in ("output_tensor_type", "token_embedding_type"):
        if request.get(option):
            setattr(params, option, _type(llama_cpp, _fits(request, option, rows)))
    if request.get("overrides"):
        params.tt_overrides = _overrides(llama_cpp, chosen_types(request, rows), kept)
    llama_cpp.llama_backend_init()
    status = llama_cpp.llama_model_quantize(
        os.fsencode(request["source"]), os.fsencode(request["out"]), ctypes.byref(params)
    )
    if status != 0:
        raise StageError(f"llama.cpp refused to quantise to {ftype} (status {status})")
    return {}


def _chosen(request: dict[str, Any]) -> bool:
    return any(request.get(name) for name in ("overrides", "output_tensor_type", "token_embedding_type"))


def _rows(path: str) -> dict[str, int]:
    """Each tensor that may be quantised, with the length of its rows."""
    from gguf import GGUFReader

    return {
        tensor.name: int(tensor.shape[0])
        for tensor in GGUFReader(path).tensors
        if len(tensor.shape) > 1 and tensor.name.endswith("weight") and "_norm.weight" not in tensor.name
    }


def chosen_types(request: dict[str, Any], rows: dict[str, int]) -> dict[str, str]:
    """Each tensor that a pattern fits, with the type of the first that does. Raises StageError for a pattern that
    decides nothing, and for a type that a tensor cannot have."""
    chosen: dict[str, str] = {}
    for pattern, kind in request["overrides"]:
        key = f"recipe.overrides.{pattern!r}"
        fitting = [name for name in rows if re.search(pattern, name)]
        if not fitting:
            known = sorted({re.sub(r"\d+", "N", name) for name in rows})
            raise StageError(f"{key} fits no tensor of this model that can be quantised; there are {', '.join(known)}")
        first = [name for name in fitting if name not in chosen]
        if not first:
            raise StageError(f"{key} decides nothing: patterns before it fit the same tensors; take it away")
        for name in first:
            _check_row(key, kind, name, rows[name])
            if name in EMBEDDINGS and kind in MATRIX_ONLY:
                raise StageError(f"{key}: {name} cannot be {kind}, which needs an importance matrix")
            chosen[name] = kind
    return chosen


def _fits(request: dict[str, Any], option: str, rows: dict[str, int]) -> str:
    """The type, where the rows of the tensors that it is for divide by its block: llama.cpp itself would abort."""
    kind: str = request[option]
    for name in EMBEDDINGS:
        if name in rows:
            _check_row(f"recipe.{option}", kind, name, rows[name])
    return kind


def _check_row(key: str, kind: str, name: str, row: int) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    if row % block:
        raise StageError(f"{key}: {kind} needs rows that divide by {block}, and those of {name} have {row}")


def _type(llama_cpp: Any, name: str) -> int:
    number: int = getattr(llama_cpp, f"GGML_TYPE_{name}")
    return number


def _overrides(llama_cpp: Any, chosen: dict[str, str], kept: list[Any]) -> Any:
    # By each tensor's whole name, so that one language of patterns decides, and not llama.cpp's as well.
    table = (llama_cpp.llama_model_tensor_override * (len(chosen) + 1))()
    for entry, (name, kind) in zip(table, chosen.items(), strict=False):
        entry.pattern = f"^{re.escape(name)}$".encode()
        entry.type = _type(llama_cpp, kind)
    kept.append(table)
    return table


def _imatrix(llama_cpp: Any, path: str, kept: list[Any]) -> Any:
    from gguf import GGUFReader

    read = {tensor.name: np.array(tensor.data, np.float32) for tensor in GGUFReader(path).tensors}
    names = sorted(name.removesuffix(".in_sum2") for name in read if name.endswith(".in_sum2"))
    table = (llama_cpp.llama_model_imatrix_data * (len(names) + 1))()
    for entry, name in zip(table, names, strict=False):
        sums, counts = read[f"{name}.in_sum2"], read[f"{name}.counts"].reshape(-1, 1)
        # An expert that no token of the text reached weighs all its columns alike.
        means = np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32).ravel()
        kept.append(means)
        entry.name = name.encode()
        entry.data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = means.size
    kept.append(table)
    return table


if __name__ == "__main__":
    sys.exit(run(quantise))
