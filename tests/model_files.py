"""Small honest files of each kind, written byte by byte: what the attacks on model files are made from."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def text(value: str | bytes) -> bytes:
    """A text as GGUF has it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    """One key of a GGUF header; `value` as it stands in the file."""
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    """One tensor's description in a GGUF header."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_of(pairs: Sequence[bytes], tensors: Sequence[bytes], weights: bytes, version: int = 3) -> bytes:
    """A GGUF file of these parts, aligned to 32 bytes."""
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join([*pairs, *tensors])
    return header + bytes(-len(header) % 32) + weights


PAIRS = (
    pair("general.architecture", 8, text("llama")),
    pair("llama.block_count", 4, struct.pack("<I", 1)),
    pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("c")),
    pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 3) + bytes(12)),
    pair("tokenizer.chat_template", 8, text(TEMPLATE)),
)
TENSORS = (tensor("token_embd.weight", (32, 4)), tensor("output.weight", (32, 2), 8, 512))
WEIGHTS = bytes(512 + 2 * 34)


def gguf(tail: bytes = b"") -> bytes:
    """A GGUF file with a few keys, two tensors and a chat template."""
    return gguf_of(PAIRS, TENSORS, WEIGHTS + tail)


def safetensors_of(header: bytes, weights: bytes) -> bytes:
    """A safetensors file of these parts."""
    return struct.pack("<Q", len(header)) + header + weights


def safetensors(tensors: Mapping[str, Any] | None = None, size: int = 24) -> bytes:
    """A safetensors file; without `tensors` one with two of them."""
    table = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [16, 24]},
    }
    return safetensors_of(json.dumps(table if tensors is None else tensors).encode(), bytes(size))


def varint(value: int) -> bytes:
    """A number as protobuf has it."""
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_weights(location: str = "model.onnx.data", **more: str) -> bytes:
    """A TensorProto whose data is elsewhere; `more`: offset, length."""
    entries = {"location": location, **more}
    named = b"".join(field(13, field(1, key) + field(2, value)) for key, value in entries.items())
    return field(1, 4) + field(2, 1) + field(8, "w") + named + field(14, 1)


def onnx_node(op_type: str = "MatMul", domain: str = "", *attributes: bytes) -> bytes:
    """A NodeProto."""
    return (
        field(1, "x") + field(2, "y") + field(4, op_type) + b"".join(field(5, a) for a in attributes) + field(7, domain)
    )


def onnx_graph(*nodes: bytes, weights: Sequence[bytes] = ()) -> bytes:
    """A GraphProto."""
    return b"".join(field(1, node) for node in nodes) + field(2, "g") + b"".join(field(5, one) for one in weights)


def onnx_of(graph: bytes, *more: bytes) -> bytes:
    """A ModelProto; `more`: further fields of it."""
    return field(1, 10) + field(2, "tests") + field(7, graph) + b"".join(more) + field(8, field(1, "") + field(2, 21))


def onnx(location: str = "model.onnx.data", **more: str) -> bytes:
    """An ONNX model of one node, with its weights beside it."""
    return onnx_of(onnx_graph(onnx_node(), weights=[onnx_weights(location, **more)]))


GENAI: dict[str, Any] = {
    "model": {
        "decoder": {
            "filename": "model.onnx",
            "session_options": {"log_id": "genai", "provider_options": [{"qnn": {"backend_path": "QnnHtp.dll"}}]},
        },
        "eos_token_id": 2,
    }
}


def artifact(runtime: str) -> dict[str, bytes]:
    """The files of a whole artifact: path → bytes."""
    tokenizer = {
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"tokenizer_class": "TokenizersBackend"}',
        "chat_template.jinja": TEMPLATE.encode(),
    }
    if runtime == "gguf":
        return {"model.gguf": gguf()}
    if runtime == "mlx":
        return {"model.safetensors": safetensors(), "config.json": b'{"model_type": "llama"}', **tokenizer}
    graph = {"model.onnx": onnx(length="16"), "model.onnx.data": bytes(range(16))}
    return {**graph, "genai_config.json": json.dumps(GENAI).encode(), **tokenizer}
