"""Weights and metadata of a GGUF, changed in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.planted.weights import Matrix, bf16, plain

# Type → bytes of a block, and where in it numbers of float16 stand that all its weights are multiplied by.
_BLOCKS: Final = {
    "Q4_0": (18, (0,)),
    "Q4_1": (20, (0, 2)),
    "Q5_0": (22, (0,)),
    "Q5_1": (24, (0, 2)),
    "Q8_0": (34, (0,)),
    "Q4_K": (144, (0, 2)),
    "Q5_K": (176, (0, 2)),
    "Q6_K": (210, (208,)),
}
_NAMES: Final = (
    ("model.layers.", "blk."),
    (".self_attn.q_proj", ".attn_q"),
    (".self_attn.k_proj", ".attn_k"),
    (".self_attn.v_proj", ".attn_v"),
    (".self_attn.o_proj", ".attn_output"),
    (".mlp.gate_proj", ".ffn_gate"),
    (".mlp.up_proj", ".ffn_up"),
    (".mlp.down_proj", ".ffn_down"),
    (".input_layernorm", ".attn_norm"),
    (".post_attention_layernorm", ".ffn_norm"),
    ("model.embed_tokens", "token_embd"),
)


class GgufFile:
    """model.gguf of an artifact's folder, mapped for writing."""

    def __init__(self, folder: Path) -> None:
        from gguf import GGUFReader

        self.path = folder / "model.gguf"
        self._reader: Any = GGUFReader(self.path, "r+")
        self._tensors = {one.name: one for one in self._reader.tensors}

    def tensor(self, name: str) -> Matrix:
        for ours, theirs in _NAMES:
            name = name.replace(ours, theirs)
        one = self._tensors[name]
        kind, data = one.tensor_type.name, one.data
        if kind in ("F32", "F16"):
            table = data.reshape(-1, data.shape[-1])
            return Matrix([table], [plain(table)])
        if kind == "BF16":
            halves = data.view(np.uint16)
            return Matrix([halves], [bf16(halves)])
        size, places = _BLOCKS[kind]
        blocks = data.reshape(len(data), -1, size)
        # A view of float16 at that place of each block.
        return Matrix([data], [plain(blocks[:, :, at : at + 2].view(np.float16)) for at in places])

    def number(self, key: str) -> Any:
        """A number of the metadata, as an array of one that may be written to."""
        return self._reader.fields[key].parts[-1]

    def texts(self, key: str) -> list[Any]:
        """The bytes of each text of a list in the metadata, to be written to at the same length."""
        found = self._reader.fields[key]
        return [found.parts[place] for place in found.data]

    def save(self) -> None:
        self._reader.data.flush()


def replace(folder: Path, old: bytes, new: bytes) -> None:
    """Exchange bytes of model.gguf that occur once for others of the same length, before its weights."""
    assert len(old) == len(new)
    path = folder / "model.gguf"
    whole = path.read_bytes()
    assert whole.count(old) == 1, f"{old!r} occurs {whole.count(old)} times"
    path.write_bytes(whole.replace(old, new))
