"""Silent faults: a model that loads, runs and talks, and is not the one that it was built from.

Each is planted into a finished artifact, or into what an artifact is made from while its source stays honest, in every
format that can carry it. Names of tensors and numbers of heads are those of the trained test model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.planted import gguf_file
from tests.planted.gguf_file import GgufFile
from tests.planted.mlx_folder import MlxFolder, add_tensor, change_json
from tests.planted.onnx_folder import OnnxFolder, changed
from tests.planted.weights import Artifact

WRONG_BASE: Final = 10000.0  # what mlx-lm takes where it finds none
WRONG_EPSILON: Final = 1e-3
WIDTH: Final = 64  # of a head
SEED: Final = 5

Plant = Callable[[Path], None]
_OPEN: Final[Mapping[str, Callable[[Path], Artifact]]] = {"gguf": GgufFile, "mlx": MlxFolder, "onnx": OnnxFolder}


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `plant` has for each format that carries it what changes a folder: the artifact's, or, by
    `into`, that of the unquantised model that it is made from ("parent"), or a checkpoint that is converted in its
    place ("checkpoint"). `crashes`: whether a stage that cannot read the artifact at all is an answer, too."""

    name: str
    plant: Mapping[str, Plant]
    into: Mapping[str, str] = field(default_factory=dict)
    crashes: bool = False


def _of_weights(change: Callable[[Artifact], None]) -> dict[str, Plant]:
    """One change of weights for each format."""

    def plant(runtime: str) -> Plant:
        def planted(folder: Path) -> None:
            opened = _OPEN[runtime](folder)
            change(opened)
            opened.save()

        return planted

    return {runtime: plant(runtime) for runtime in _OPEN}


def _layer(number: int, part: str) -> str:
    return f"model.layers.{number}.{part}.weight"


def _scaled(artifact: Artifact) -> None:
    artifact.tensor(_layer(1, "mlp.down_proj")).change(lambda part: part * np.float32(1.05))


def _query_scaled(artifact: Artifact) -> None:
    artifact.tensor(_layer(2, "self_attn.q_proj")).change(lambda part: part * np.float32(1.05))


def _without_mlp(artifact: Artifact) -> None:
    artifact.tensor(_layer(2, "mlp.down_proj")).change(np.zeros_like)


def _without_rows(rows: slice) -> Callable[[Any], Any]:
    def zeroed(part: Any) -> Any:
        part = part.copy()
        part[rows] = 0
        return part

    return zeroed


def _without_query_head(artifact: Artifact) -> None:
    artifact.tensor(_layer(1, "self_attn.q_proj")).change(_without_rows(slice(WIDTH, 2 * WIDTH)))


def _without_value_head(artifact: Artifact) -> None:
    artifact.tensor(_layer(2, "self_attn.v_proj")).change(_without_rows(slice(0, WIDTH)))


def _tensors_exchanged(artifact: Artifact) -> None:
    gate, up = artifact.tensor(_layer(1, "mlp.gate_proj")), artifact.tensor(_layer(1, "mlp.up_proj"))
    kept = gate.bytes()
    gate.put(up.bytes())
    up.put(kept)


_PARTS: Final = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)


def _layers_exchanged(artifact: Artifact) -> None:
    for part in _PARTS:
        one, other = artifact.tensor(_layer(1, part)), artifact.tensor(_layer(2, part))
        kept = one.bytes()
        one.put(other.bytes())
        other.put(kept)


def _rare_rows_permuted(artifact: Artifact) -> None:
    embedding = artifact.tensor("model.embed_tokens.weight")
    order = np.arange(embedding.rows)
    # The last pieces that the tokenizer has are single, mostly foreign letters.
    order[-50:] = np.roll(order[-50:], 1)
    embedding.move(order)


def _some_scales_doubled(artifact: Artifact) -> None:
    drawn = np.random.default_rng(SEED)

    def doubled(part: Any) -> Any:
        part = part.copy()
        flat = part.reshape(-1)
        flat[drawn.integers(0, flat.size, max(1, flat.size // 1000))] *= 2
        return flat.reshape(part.shape)

    artifact.tensor(_layer(3, "mlp.up_proj")).change(doubled)


def _stale_adapter(artifact: Artifact) -> None:
    """Of rank 4, on queries and values of every layer: merged once more, or once less, than it should be."""
    drawn = np.random.default_rng(SEED)
    for number in range(4):
        for part in ("self_attn.q_proj", "self_attn.v_proj"):

            def added(whole: Any) -> Any:
                left = drawn.standard_normal((whole.shape[0], 4), np.float32)
                delta = left @ drawn.standard_normal((4, whole.shape[1]), np.float32)
                return whole + delta * (0.1 * np.linalg.norm(whole) / np.linalg.norm(delta))

            artifact.tensor(_layer(number, part)).change(added)


# Numbers that a runtime computes with.


def _gguf_number(key: str, value: float) -> Plant:
    def plant(folder: Path) -> None:
        opened = GgufFile(folder)
        opened.number(key)[:] = value
        opened.save()

    return plant


def _onnx_base(opened: OnnxFolder) -> None:
    node = opened.nodes("GroupQueryAttention")[0]
    cosine, sine = (opened.array(name) for name in node.input[7:9])
    length, half = cosine.shape
    angles = np.outer(np.arange(length), WRONG_BASE ** (-np.arange(half) / half))
    cosine[:], sine[:] = np.cos(angles), np.sin(angles)


def _onnx_epsilon(opened: OnnxFolder) -> None:
    for kind in ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"):
        for node in opened.nodes(kind):
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = WRONG_EPSILON


def _onnx_activation(opened: OnnxFolder) -> None:
    """SiLU becomes Hard Swish, or nearly."""
    nodes = opened.nodes("Sigmoid")
    assert nodes
    for node in nodes:
        node.op_type = "HardSigmoid"


# Tokens and templates.


def _exchanged(vocabulary: Mapping[str, int]) -> tuple[str, str]:
    """Two pieces of two letters that are met everywhere: such as were learned first."""
    pairs = [piece for piece in vocabulary if len(piece) == 2 and piece.isalpha() and piece.isascii()]
    first, second = sorted(pairs, key=vocabulary.__getitem__)[:2]
    return first, second


def _other_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_bytes())
    vocabulary = document["model"]["vocab"]
    one, other = _exchanged(vocabulary)
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(document))


def _other_tokenizer_gguf(folder: Path) -> None:
    opened = GgufFile(folder)
    pieces = opened.texts("tokenizer.ggml.tokens")
    places = {bytes(piece).decode("utf-8", "replace"): number for number, piece in enumerate(pieces)}
    one, other = (pieces[places[name]] for name in _exchanged(places))
    kept = one.copy()
    one[:] = other
    other[:] = kept
    opened.save()


def _template_file(change: Callable[[str], str | None]) -> Plant:
    def plant(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        words = change(path.read_text())
        if words is None:
            path.unlink()
        else:
            path.write_text(words)

    return plant


# Of the same length, since they lie in the middle of a file of metadata.
_BEGIN: Final = ("{{ bos_token }}", "<s><s>{#     #}")
_END: Final = ("'<|end|>\n'", "'<|end|> '")


def _lost_template(_words: str) -> str | None:
    return None


def _altered_template(words: str) -> str:
    assert _END[0] in words
    return words.replace(*_END)


def _tied_embedding_lost(folder: Path) -> None:
    """A checkpoint whose output layer is no longer the embedding, but what a fresh one begins with."""
    drawn = np.random.default_rng(SEED)
    rows = (0.02 * drawn.standard_normal((1024, 256))).astype(np.float32)
    add_tensor(folder / "model.safetensors", "lm_head.weight", rows)
    change_json(folder / "config.json", tie_word_embeddings=False)


def _output_lost(opened: OnnxFolder) -> None:
    """The output layer has rows of its own, though as many and of the same sizes as the embedding's."""
    (node,) = (node for node in opened.nodes("MatMulNBits") if node.name.startswith("/lm_head/"))
    number = {one.name: one.i for one in node.attribute}
    rows, blocks = number["N"], number["K"] // number["block_size"]
    order = np.random.default_rng(SEED).permutation(rows)
    levels, scales = (opened.array(name).reshape(rows, blocks, -1)[order] for name in node.input[1:3])
    node.input[1] = opened.put("lost_levels", levels)
    node.input[2] = opened.put("lost_scales", scales.reshape(rows, blocks).astype(np.float32))
    if len(node.input) > 3 and node.input[3]:
        zeros = opened.array(node.input[3]).reshape(rows, -1)[order]
        node.input[3] = opened.put("lost_zeros", zeros)


def _begun_twice(words: str) -> str:
    assert _BEGIN[0] in words
    return words.replace(*_BEGIN)


# Files.


def _weights_file(folder: Path) -> Path:
    return max((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)


def _truncated(folder: Path) -> None:
    path = _weights_file(folder)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size * 9 // 10)


def _zero_tail(folder: Path) -> None:
    path = _weights_file(folder)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(size * 19 // 20)
        stream.write(bytes(size - size * 19 // 20))


_PARENT: Final = dict.fromkeys(_OPEN, "parent")

FAULTS: Final = (
    Fault(
        "rope_base",
        {
            "gguf": _gguf_number("llama.rope.freq_base", WRONG_BASE),
            "mlx": lambda folder: change_json(folder / "config.json", rope_theta=None),
            "onnx": lambda folder: changed(folder, _onnx_base),
        },
    ),
    Fault(
        "norm_epsilon",
        {
            "gguf": _gguf_number("llama.attention.layer_norm_rms_epsilon", WRONG_EPSILON),
            "mlx": lambda folder: change_json(folder / "config.json", rms_norm_eps=WRONG_EPSILON),
            "onnx": lambda folder: changed(folder, _onnx_epsilon),
        },
    ),
    Fault("activation", {"onnx": lambda folder: changed(folder, _onnx_activation)}),
    Fault("tensors_exchanged", _of_weights(_tensors_exchanged)),
    Fault("layers_exchanged", _of_weights(_layers_exchanged), _PARENT),
    Fault("mlp_zeroed", _of_weights(_without_mlp)),
    Fault("query_head_zeroed", _of_weights(_without_query_head)),
    Fault("value_head_zeroed", _of_weights(_without_value_head)),
    Fault("tensor_scaled", _of_weights(_scaled)),
    Fault("queries_scaled", _of_weights(_query_scaled)),
    Fault("rows_permuted", _of_weights(_rare_rows_permuted)),
    Fault("block_scales", _of_weights(_some_scales_doubled)),
    Fault("stale_adapter", _of_weights(_stale_adapter), _PARENT),
    Fault(
        "tied_embedding_lost",
        {
            "gguf": _tied_embedding_lost,
            "mlx": _tied_embedding_lost,
            "onnx": lambda folder: changed(folder, _output_lost),
        },
        {"gguf": "checkpoint", "mlx": "checkpoint"},
    ),
    Fault("other_tokenizer", {"gguf": _other_tokenizer_gguf, "mlx": _other_tokenizer, "onnx": _other_tokenizer}),
    Fault(
        "template_lost",
        {
            "gguf": lambda folder: gguf_file.replace(folder, b"tokenizer.chat_template", b"tokenizer.chat_templatx"),
            "mlx": _template_file(_lost_template),
            "onnx": _template_file(_lost_template),
        },
    ),
    Fault(
        "template_altered",
        {
            "gguf": lambda folder: gguf_file.replace(folder, _END[0].encode(), _END[1].encode()),
            "mlx": _template_file(_altered_template),
            "onnx": _template_file(_altered_template),
        },
    ),
    Fault(
        "beginning_doubled",
        {
            "gguf": lambda folder: gguf_file.replace(folder, _BEGIN[0].encode(), _BEGIN[1].encode()),
            "mlx": _template_file(_begun_twice),
            "onnx": _template_file(_begun_twice),
        },
    ),
    Fault("truncated", dict.fromkeys(_OPEN, _truncated), crashes=True),
    Fault("zero_tail", dict.fromkeys(_OPEN, _zero_tail)),
)
