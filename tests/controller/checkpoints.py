"""Tiny checkpoint folders, written byte by byte, for tests that look at a source without a toolchain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 4,
    "max_position_embeddings": 32,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
}


def safetensors(tensors: dict[str, list[int]], kind: str = "BF16", width: int = 2) -> bytes:
    """A file with these tensors, all zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors.items():
        size = width
        for length in shape:
            size *= length
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + bytes(position)


def write(folder: Path, config: dict[str, Any] | None = None, **files: bytes) -> Path:
    """A checkpoint with the smallest weights; `files` adds or replaces (`__` in a name stands for a dot)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors({"embed": [4, 8], "norm": [8]}))
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder
