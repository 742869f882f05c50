"""A very small language model as a GGUF, written without any toolchain: bytes as tokens, random weights, a template."""

from __future__ import annotations

from pathlib import Path
from typing import Final

WIDE: Final = 64
LAYERS: Final = 2
HEADS: Final = 4
INNER: Final = 128
CONTEXT: Final = 1024
_TEMPLATE: Final = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"


def write(folder: Path, type_name: str = "F32", *, template: bool = True) -> Path:
    """A folder with `model.gguf`, its matrices of this type; the same weights for every type."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    folder.mkdir(parents=True, exist_ok=True)
    kind = GGMLQuantizationType[type_name]
    random = np.random.default_rng(5)
    writer = GGUFWriter(folder / "model.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDE)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDE // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % value for value in range(256))]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [6] * 256)  # unknown, control, control, bytes
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if template:
        writer.add_chat_template(_TEMPLATE)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = (random.standard_normal((rows, columns)) * 0.3).astype(np.float32)
        data = values if type_name == "F32" else quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)

    matrix("token_embd.weight", len(tokens), WIDE)
    matrix("output.weight", len(tokens), WIDE)
    writer.add_tensor("output_norm.weight", np.ones(WIDE, np.float32))
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDE, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}.weight", WIDE, WIDE)
        for name in ("ffn_gate", "ffn_up"):
            matrix(f"blk.{layer}.{name}.weight", INNER, WIDE)
        matrix(f"blk.{layer}.ffn_down.weight", WIDE, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder
