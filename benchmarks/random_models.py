"""Artifacts of real sizes with random weights, written in seconds: nothing is converted, the packed blocks are random.

Their shapes are Qwen2.5's. What such a model says is nonsense; what it needs of memory is what a real one needs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from edgewright_controller.compile.source import ModelFacts

TEMPLATE: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
MLX_GROUP: Final = 64
MLX_BITS: Final = 4
_POOL: Final = np.random.default_rng(1).integers(0, 256, 1 << 24, dtype=np.uint8)


@dataclass(frozen=True)
class Shape:
    """What a config.json says."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int = 151_936

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each matrix of a layer, by llama.cpp's name."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "attn_q": (wide, self.hidden),
            "attn_k": (narrow, self.hidden),
            "attn_v": (narrow, self.hidden),
            "attn_output": (self.hidden, wide),
            "ffn_gate": (self.inner, self.hidden),
            "ffn_up": (self.inner, self.hidden),
            "ffn_down": (self.hidden, self.inner),
        }

    @property
    def facts(self) -> ModelFacts:
        """As the controller would find it."""
        each = sum(rows * columns for rows, columns in self.matrices.values()) + 2 * self.hidden
        parameters = self.layers * each + (self.vocab + 1) * self.hidden
        return ModelFacts(
            architecture="LlamaForCausalLM",
            model_type="llama",
            parameters=parameters,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            vocab=self.vocab,
            context=32_768,
            dtype="bf16",
            bytes=2 * parameters,
            inner=self.inner,
        )


SHAPES: Final[Mapping[str, Shape]] = {
    "0.5B": Shape(hidden=896, inner=4864, layers=24, heads=14, kv_heads=2, head_dim=64),
    "1.5B": Shape(hidden=1536, inner=8960, layers=28, heads=12, kv_heads=2, head_dim=128),
}


def write_gguf(folder: Path, shape: Shape, kind: str, tokenizer: Path) -> int:
    """`folder`/model.gguf, its matrices of this type of llama.cpp's, and its bytes. The embedding is of the type that
    llama.cpp chooses: Q6_K, or Q8_0 where rows are too short for its blocks."""
    folder.mkdir(parents=True)
    document = json.loads((tokenizer / "tokenizer.json").read_bytes())["model"]
    known = sorted(document["vocab"], key=document["vocab"].get)
    writer = GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(32_768)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_vocab_size(shape.vocab)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*known, *(f"<unused_{number}>" for number in range(shape.vocab - len(known)))])
    writer.add_token_types([1] * len(known) + [5] * (shape.vocab - len(known)))
    writer.add_token_merges([" ".join(pair) for pair in document["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    weights, head = GGMLQuantizationType[kind], "Q8_0" if shape.hidden % 256 else "Q6_K"
    _matrix(writer, "token_embd.weight", (shape.vocab, shape.hidden), GGMLQuantizationType[head])
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden, np.float32))
    for layer in range(shape.layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(shape.hidden, np.float32))
        for name, size in shape.matrices.items():
            _matrix(writer, f"blk.{layer}.{name}.weight", size, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return (folder / "model.gguf").stat().st_size


def _matrix(writer: GGUFWriter, name: str, size: tuple[int, int], kind: GGMLQuantizationType) -> None:
    rows, columns = size
    weights, each = GGML_QUANT_SIZES[kind]
    blocks = _random(rows * columns // weights * each).reshape(-1, each)
    # The block's scale: what is random there would be infinite now and then.
    at = each - 2 if kind is GGMLQuantizationType.Q6_K else 0
    blocks[:, at : at + 2] = np.frombuffer(np.float16(0.002).tobytes(), np.uint8)
    writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=kind)


def write_mlx(folder: Path, shape: Shape, tokenizer: Path) -> int:
    """A model of mlx-lm's, 4 bits, and the bytes of all its files."""
    folder.mkdir(parents=True)
    shutil.copyfile(tokenizer / "tokenizer_config.json", folder / "tokenizer_config.json")
    document = json.loads((tokenizer / "tokenizer.json").read_bytes())
    known = document["model"]["vocab"]
    known |= {f"<unused_{number}>": number for number in range(len(known), shape.vocab)}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    packing = {"group_size": MLX_GROUP, "bits": MLX_BITS, "mode": "affine"}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "quantization": packing,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = _Safetensors()
    tensors.packed("model.embed_tokens", shape.vocab, shape.hidden)
    tensors.ones("model.norm.weight", shape.hidden)
    places = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    places |= {"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
    places |= {"ffn_down": "mlp.down_proj"}
    for layer in range(shape.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors.ones(f"model.layers.{layer}.{norm}.weight", shape.hidden)
        for name, (rows, columns) in shape.matrices.items():
            tensors.packed(f"model.layers.{layer}.{places[name]}", rows, columns)
    tensors.write(folder / "model.safetensors")
    return sum(file.stat().st_size for file in folder.iterdir())


class _Safetensors:
    """A file of tensors, collected and then written."""

    def __init__(self) -> None:
        self._header: dict[str, Any] = {}
        self._parts: list[Any] = []
        self._end = 0

    def packed(self, name: str, rows: int, columns: int) -> None:
        """A matrix in 4 bits, with the scale and bias of each group in bfloat16."""
        self._add(f"{name}.weight", "U32", (rows, columns * MLX_BITS // 32), _random(rows * columns * MLX_BITS // 8))
        groups = (rows, columns // MLX_GROUP)
        for part, value in (("scales", 0x3A83), ("biases", 0xBC00)):
            self._add(f"{name}.{part}", "BF16", groups, np.full(groups, value, np.uint16))

    def ones(self, name: str, width: int) -> None:
        """A vector of ones in bfloat16."""
        self._add(name, "BF16", (width,), np.full(width, 0x3F80, np.uint16))

    def write(self, path: Path) -> None:
        """Header and data."""
        head = json.dumps(self._header).encode()
        head += b" " * (-len(head) % 8)
        with path.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for part in self._parts:
                file.write(part.tobytes())

    def _add(self, name: str, kind: str, shape: tuple[int, ...], data: Any) -> None:
        offsets = [self._end, self._end + data.nbytes]
        self._header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": offsets}
        self._parts.append(data)
        self._end = offsets[1]


def _random(count: int) -> Any:
    return np.tile(_POOL, -(-count // _POOL.size))[:count]
