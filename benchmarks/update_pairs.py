"""Pairs of artifacts as updates make them, from the demo's model and a seed: what delivery_bytes.py sends.

Two bases of each format: the artifact that the builder makes, and one whose quantised weights were taken apart, moved
within their rounding, and quantised again, as a checkpoint's are that was never on the grid. Against the first, what
leaves most bytes alone is measured; against the second, weights that get Gaussian noise of a share of each tensor's
standard deviation before they are quantised again. The embedding is left alone, as most fine-tuning leaves it.
"""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgewright_contract.model_files import TensorSpan, gguf_header, onnx_graph, safetensors_header

SEED: Final = 20261129
LAYERS: Final = (10, 20)
# A multiple of GGUF's alignment, so that all weights move by it.
LONGER: Final = b"{# answers in one sentence, in the words of the manual, or says what is missing #}" + b" " * 14

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Change = Callable[["Model", np.random.Generator], None]


@dataclass(frozen=True)
class Pair:
    """An update: from the artifact in `base` to that in `wanted`. `what` is a line for a person."""

    runtime: str
    name: str
    what: str
    base: Path
    wanted: Path


class Model(ABC):
    """An artifact's weights file in memory, and what of it is quantised weights: 4 bits each, in groups."""

    def __init__(self, folder: Path, file: str, spans: Sequence[TensorSpan]) -> None:
        self.folder, self.path = folder, folder / file
        self.data = np.fromfile(self.path, dtype=np.uint8)
        self._spans = {span.name: span for span in spans}

    def at(self, name: str) -> Bytes:
        """A tensor's bytes, to be looked at and changed."""
        span = self._spans[name]
        return self.data[span.offset : span.offset + span.size]

    def save(self) -> None:
        """Write the file."""
        self.data.tofile(self.path)

    @abstractmethod
    def weights(self) -> Iterator[str]:
        """The tensors that are quantised, but for the embedding, in the file's order."""

    @abstractmethod
    def nibbles(self, name: str) -> Bytes:
        """The bytes of `name` that hold two weights each, as rows of a quantisation group; a view."""

    @abstractmethod
    def taken_apart(self, name: str) -> tuple[Floats, Floats]:
        """(groups × weights, groups × 1: what one step of the grid is)."""

    @abstractmethod
    def put(self, name: str, weights: Floats) -> None:
        """Quantise and store."""

    def edit_template(self) -> None:
        """A chat template that is longer."""
        path = self.folder / "chat_template.jinja"
        path.write_bytes(path.read_bytes() + LONGER)


class Gguf(Model):
    """Q4_1: groups of 32, each two float16 (step and least) and 16 bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "model.gguf", gguf_header.tensor_spans(folder / "model.gguf"))

    def weights(self) -> Iterator[str]:
        for name in self._spans:
            if re.fullmatch(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight", name):
                yield name

    def nibbles(self, name: str) -> Bytes:
        return self.at(name).reshape(-1, 20)[:, 4:]

    def taken_apart(self, name: str) -> tuple[Floats, Floats]:
        groups = self.at(name).reshape(-1, 20)
        step, least = (groups[:, n : n + 2].copy().view(np.float16).astype(np.float32) for n in (0, 2))
        packed = groups[:, 4:]
        return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) * step + least, step

    def put(self, name: str, weights: Floats) -> None:
        least = weights.min(axis=1, keepdims=True)
        step = (weights.max(axis=1, keepdims=True) - least) / np.float32(15)
        scaled = (weights - least) / np.where(step > 0, step, np.float32(1))
        whole = np.clip(np.floor(scaled + np.float32(0.5)), 0, 15).astype(np.uint8)
        groups = self.at(name).reshape(-1, 20)
        groups[:, 0:2] = step.astype(np.float16).view(np.uint8)
        groups[:, 2:4] = least.astype(np.float16).view(np.uint8)
        groups[:, 4:] = whole[:, :16] | (whole[:, 16:] << 4)

    def edit_template(self) -> None:
        self._insert(b"tokenizer.chat_template", LONGER)

    def edit_name(self) -> None:
        """Another name of the same length, so that nothing moves."""
        at, length = self._text(b"general.name")
        self.data[at : at + length] = np.frombuffer(bytes(self.data[at : at + length]).swapcase(), dtype=np.uint8)

    def _text(self, key: bytes) -> tuple[int, int]:
        """Where a key's text stands, and its length."""
        whole = self.data[: 1 << 22].tobytes()
        at = whole.index(len(key).to_bytes(8, "little") + key) + 8 + len(key) + 4
        return at + 8, int.from_bytes(whole[at : at + 8], "little")

    def _insert(self, key: bytes, more: bytes) -> None:
        at, length = self._text(key)
        self.data[at - 8 : at] = np.frombuffer((length + len(more)).to_bytes(8, "little"), dtype=np.uint8)
        self.data = np.insert(self.data, at + length, np.frombuffer(more, dtype=np.uint8))


class Mlx(Model):
    """Affine 4 bit: groups of 64 in `weight`, two bfloat16 (`scales`, `biases`)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "model.safetensors", safetensors_header.tensor_spans(folder / "model.safetensors"))

    def weights(self) -> Iterator[str]:
        for name in self._spans:
            if name.endswith("_proj.weight"):
                yield name.removesuffix(".weight")

    def nibbles(self, name: str) -> Bytes:
        return self.at(f"{name}.weight").reshape(-1, 32)

    def taken_apart(self, name: str) -> tuple[Floats, Floats]:
        step, least = (_from_bfloat16(self.at(f"{name}.{part}")) for part in ("scales", "biases"))
        return _unpacked(self.nibbles(name)) * step + least, np.abs(step)

    def put(self, name: str, weights: Floats) -> None:
        least = weights.min(axis=1, keepdims=True)
        step = _rounded((weights.max(axis=1, keepdims=True) - least) / np.float32(15))
        whole = np.clip(np.rint((weights - least) / np.where(step > 0, step, np.float32(1))), 0, 15).astype(np.uint8)
        self.at(f"{name}.scales")[:] = _to_bfloat16(step)
        self.at(f"{name}.biases")[:] = _to_bfloat16(least)
        self.nibbles(name)[:] = whole[:, 0::2] | (whole[:, 1::2] << 4)


class Onnx(Model):
    """MatMulNBits: groups of 32 in `_Q4`, a float16 each in `_scales`, four bits each in `_zero_points`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "model.onnx.data", onnx_graph.tensor_spans(folder / "model.onnx")["model.onnx.data"])

    def weights(self) -> Iterator[str]:
        for name in self._spans:
            if name.startswith("model.layers.") and name.endswith("_Q4"):
                yield name.removesuffix("_Q4")

    def nibbles(self, name: str) -> Bytes:
        return self.at(f"{name}_Q4").reshape(-1, 16)

    def taken_apart(self, name: str) -> tuple[Floats, Floats]:
        step = self.at(f"{name}_scales").copy().view(np.float16).astype(np.float32)[:, None]
        zero = _unpacked(self.at(f"{name}_zero_points")[None, :]).reshape(-1, 1)[: len(step)]
        return (_unpacked(self.nibbles(name)) - zero) * step, np.abs(step)

    def put(self, name: str, weights: Floats) -> None:
        least = np.minimum(weights.min(axis=1, keepdims=True), 0)
        step = (np.maximum(weights.max(axis=1, keepdims=True), 0) - least) / np.float32(15)
        step = step.astype(np.float16).astype(np.float32)
        divisor = np.where(step > 0, step, np.float32(1))
        zero = np.clip(np.rint(-least / divisor), 0, 15)
        whole = np.clip(np.rint(weights / divisor) + zero, 0, 15).astype(np.uint8)
        zeros = zero.astype(np.uint8).reshape(-1)
        self.at(f"{name}_scales")[:] = step.astype(np.float16).reshape(-1).view(np.uint8)
        self.at(f"{name}_zero_points")[:] = zeros[0::2] | (zeros[1::2] << 4)
        self.nibbles(name)[:] = whole[:, 0::2] | (whole[:, 1::2] << 4)


MODELS: Final[Mapping[str, Callable[[Path], Model]]] = {"gguf": Gguf, "mlx": Mlx, "onnx": Onnx}


def make(runtime: str, built: Path, place: Path) -> list[Pair]:
    """The pairs of one format, made in `place` from the artifact in `built`. Always the same bytes."""
    bases = {"built": _with(runtime, built, place / "built", _nothing)}
    bases["moved"] = _with(runtime, built, place / "moved", _requantised(0))
    pairs = []
    for name, (what, base, change) in _changes(runtime).items():
        pairs.append(Pair(runtime, name, what, bases[base], _with(runtime, built, place / name, change)))
    return pairs


def _changes(runtime: str) -> dict[str, tuple[str, str, Change]]:
    """Name → (what it is, which base, how)."""
    changes: dict[str, tuple[str, str, Change]] = {
        "template_edit": ("chat template longer", "built", lambda model, _: model.edit_template())
    }
    if runtime == "gguf":
        changes["name_edit"] = ("name edited, nothing moves", "built", _edit_name)
    return changes | {
        "two_layers_steps": ("2 layers, a step in 5% of groups", "built", _stepped(0.05, LAYERS)),
        "two_layers": ("2 layers requantised, noise 2%", "moved", _requantised(0.02, LAYERS)),
        "all_steps": ("all layers, a step in 1% of groups", "built", _stepped(0.01)),
        "all_requantised": ("all requantised, noise 2%", "moved", _requantised(0.02)),
        "all_requantised_little": ("all requantised, noise 0.1%", "moved", _requantised(0.001)),
    }


def _with(runtime: str, source: Path, folder: Path, change: Change) -> Path:
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    model = MODELS[runtime](folder)
    change(model, np.random.default_rng(SEED))
    model.save()
    return folder


def _nothing(_model: Model, _chance: np.random.Generator) -> None:
    pass


def _edit_name(model: Model, _chance: np.random.Generator) -> None:
    assert isinstance(model, Gguf)
    model.edit_name()


def _stepped(share: float, layers: Sequence[int] | None = None) -> Change:
    """In `share` of all groups one weight is a step more, or less if it is the most already."""

    def change(model: Model, chance: np.random.Generator) -> None:
        for name in model.weights():
            if not _meant(name, layers):
                continue
            packed = model.nibbles(name)
            rows = np.flatnonzero(chance.random(len(packed)) < share)
            columns = chance.integers(0, packed.shape[1], len(rows))
            low = packed[rows, columns] & 15
            packed[rows, columns] += np.where(low < 15, 1, -1).astype(np.int8).view(np.uint8)

    return change


def _requantised(noise: float, layers: Sequence[int] | None = None) -> Change:
    """Every tensor is moved within its rounding; those of `layers`, or all, get `noise` too."""

    def change(model: Model, chance: np.random.Generator) -> None:
        for name in model.weights():
            weights, step = model.taken_apart(name)
            weights += (chance.random(weights.shape, dtype=np.float32) - np.float32(0.5)) * step
            moved = chance.standard_normal(weights.shape, dtype=np.float32)
            if noise and _meant(name, layers):
                weights += moved * np.float32(noise) * weights.std()
            model.put(name, weights)

    return change


def _meant(name: str, layers: Sequence[int] | None) -> bool:
    number = re.search(r"\.(\d+)\.", name)
    return layers is None or (number is not None and int(number[1]) in layers)


def _unpacked(packed: Bytes) -> Floats:
    """Two weights a byte, the low four bits first."""
    return np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1).astype(np.float32)


def _from_bfloat16(data: Bytes) -> Floats:
    return (data.copy().view(np.uint16).astype(np.uint32) << 16).view(np.float32)[:, None]


def _to_bfloat16(values: Floats) -> Bytes:
    return (_rounded(values).view(np.uint32) >> 16).astype(np.uint16).reshape(-1).view(np.uint8)


def _rounded(values: Floats) -> Floats:
    """To the nearest bfloat16."""
    bits: Any = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded: Floats = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)
    return rounded
