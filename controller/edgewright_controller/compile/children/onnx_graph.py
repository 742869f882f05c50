"""An ONNX graph for onnxruntime-genai, read without running it: its weights, and what it computes with.

Weights are found where a node uses them, and named after that node, as the builder names nodes after the modules of the
source: two initialisers of equal content may have become one. External data is mapped, and dequantised a few rows at a
time. Imported by the stages that measure an ONNX artifact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rope_angles import of_angles
from rounding import nearest_level
from source_tensors import Rows, of_array
from stage import StageError

_FLOATS = {"FLOAT": ("<f4", "fp32"), "FLOAT16": ("<f2", "fp16"), "BFLOAT16": ("<u2", "bf16"), "DOUBLE": ("<f8", "fp64")}
# What types of weights are called that are numbers as they stand.
FLOATS = tuple(name for _, name in _FLOATS.values())
_PACKED = {"INT4": 4, "UINT4": 4, "INT8": 8, "UINT8": 8}
_NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LayerNormalization", "RMSNormalization")
_SKIP_NORMS = ("SkipSimplifiedLayerNormalization", "SkipLayerNormalization")
_ACTIVATIONS = {"Sigmoid": "silu", "FastGelu": "gelu_pytorch_tanh", "Gelu": "gelu", "Relu": "relu", "Tanh": "tanh"}
_ROTATING = ("GroupQueryAttention", "MultiHeadAttention", "RotaryEmbedding")
_RESHAPED = ("Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten")
# What leaves a weight as it is, or turns it over.
_CARRIED = ("Identity", "Cast")
_PLACE = re.compile(r"^/?(.*?)/[^/]+$")


class Weight(NamedTuple):
    """One weight where a node uses it: the module's name as the node has it, "weight" or "bias", how it is kept, its
    values as [outputs, inputs] of the module, and how many of them share a scale."""

    module: str
    part: str
    type: str
    rows: Rows
    run: int = 1


class Graph:
    """The graph of `folder`/`filename`. Raises StageError for what is not understood."""

    def __init__(self, folder: str, filename: str) -> None:
        import onnx

        self._onnx = onnx
        self._folder = Path(folder)
        self._graph = onnx.load(str(self._folder / filename), load_external_data=False).graph
        self._held = {one.name: one for one in self._graph.initializer}
        self._made_by = {name: node for node in self._graph.node for name in node.output}
        self._mapped: dict[str, Any] = {}

    @property
    def bytes(self) -> int:
        """Bytes of all weights that the graph holds. Its tables of rotations are none: they grow with the context."""
        tables = {name for node in self._graph.node if node.op_type in _ROTATING for name in node.input}
        return sum(self._size(one) for name, one in self._held.items() if name not in tables)

    def weights(self) -> Iterator[Weight]:
        """Every weight that a node multiplies by, looks up in, scales or adds."""
        for node in self._graph.node:
            yield from self._of(node)

    def hyperparameters(self) -> dict[str, Any]:
        """What is wired into the graph, by the names of quality/hyperparameters.py.

        Where nodes that should agree do not, the value is a text with all of theirs, which no number is equal to.
        """
        attention = [node for node in self._graph.node if node.op_type == "GroupQueryAttention"]
        attributes = [self._attributes(node) for node in attention]
        # Layers with a window may rotate otherwise; those of full attention speak for the model.
        full = [number for number, a in enumerate(attributes) if a.get("local_window_size", -1) < 0]
        windows = [a["local_window_size"] for a in attributes if a.get("local_window_size", -1) > 0]
        found: dict[str, Any] = {"sliding_window": min(windows, default=0)}
        found |= {"layers": len(attention)} if attention else {}
        for theirs, ours in (("num_heads", "heads"), ("kv_num_heads", "kv_heads"), ("scale", "attention_scale")):
            found |= _agreed(ours, [a[theirs] for a in attributes if a.get(theirs)])
        found |= _agreed(
            "norm_epsilon",
            [
                self._attributes(node)["epsilon"]
                for node in self._graph.node
                if node.op_type in (*_NORMS, *_SKIP_NORMS) and "epsilon" in self._attributes(node)
            ],
        )
        found |= _agreed("activation", self._activations())
        caches = {tuple(attention[number].input[7:9]) for number in full if len(attention[number].input) > 8}
        if len(caches) == 1:
            found |= self._angles(*caches.pop())
        return found

    def _activations(self) -> list[str]:
        """The function between the gate and the product of each layer, by transformers' names."""
        names = []
        for node in self._graph.node:
            if "/act_fn/" not in node.name or node.op_type in ("Mul", "Cast"):
                continue
            known = _ACTIVATIONS.get(node.op_type)
            if node.op_type == "Gelu" and self._attributes(node).get("approximate") == b"tanh":
                known = "gelu_pytorch_tanh"
            elif node.op_type == "QuickGelu":
                known = "silu" if self._attributes(node).get("alpha") == 1.0 else "quick_gelu"
            # One that is not known here is no name of transformers, and so another than any source's.
            names.append(known or node.op_type)
        return names

    def _angles(self, cos: str, sin: str) -> dict[str, float]:
        """From the second rows of the tables, whose angles are those of one step. Half floats are too short for it."""
        if cos not in self._held or sin not in self._held or self._type(cos) != "FLOAT":
            return {}
        step = slice(1, 2)
        # A factor on both, which some kinds of scaling have, leaves the angle as it is.
        return of_angles(np.arctan2(self._values(sin)[step].astype(np.float64), self._values(cos)[step])[0])

    def _of(self, node: Any) -> Iterator[Weight]:
        module, inputs = _module(node.name), list(node.input)
        kind = node.op_type
        if kind == "MatMulNBits":
            a = self._attributes(node)
            rows = self._blocks(inputs[1:4], a["N"], a["K"], a["bits"], a["block_size"])
            kept = _integer(a["bits"], a["block_size"], len(inputs) > 3 and inputs[3])
            yield Weight(module, "weight", kept, rows, a["block_size"])
            if len(inputs) > 5 and inputs[5] in self._held:
                yield Weight(module, "bias", *self._plain(inputs[5]))
        elif kind == "GatherBlockQuantized":
            a = self._attributes(node)
            kept, rows = self._looked_up([inputs[0], *inputs[2:4]], a)
            yield Weight(module, "weight", kept, rows, int(a.get("block_size", 128)))
        elif kind in ("MatMul", "Gemm") and len(inputs) > 1:
            found = self._carried(inputs[1])
            if found is not None:
                kept, rows, turned = found
                across = not turned if kind == "MatMul" else not turned and not self._attributes(node).get("transB")
                yield Weight(module, "weight", kept, _turned(rows) if across else rows)
            if kind == "Gemm" and len(inputs) > 2 and inputs[2] in self._held:
                yield Weight(module, "bias", *self._plain(inputs[2]))
        elif kind == "Gather":
            found = self._carried(inputs[0])
            if found is not None and found[1].shape[0] > 1:
                yield Weight(module, "weight", *found[:2])
        elif kind in _NORMS or kind in _SKIP_NORMS:
            first = 2 if kind in _SKIP_NORMS else 1
            for place, part in enumerate(("weight", "bias")):
                name = inputs[first + place] if first + place < len(inputs) else ""
                if name in self._held:
                    yield Weight(module, part, *self._plain(name))
        elif kind == "Add":
            for name in inputs:
                if name in self._held and len(self._held[name].dims) == 1 and self._held[name].dims[0] > 1:
                    yield Weight(module, "bias", *self._plain(name))
        elif kind == "Mul" and len(inputs) == 2:
            for name, other in (inputs, inputs[::-1]):
                if self._origin(other) == "LpNormalization":
                    yield from self._taken_apart(module, name)

    def _origin(self, name: str) -> str:
        """What computed this value, before it was quantised and back."""
        node = self._made_by.get(name)
        while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast"):
            node = self._made_by.get(node.input[0])
        return str(node.op_type) if node is not None else ""

    def _taken_apart(self, module: str, name: str) -> Iterator[Weight]:
        """The weight of a norm for an NPU, which divides by a row's length: it holds the root of the row's width."""
        node = self._made_by.get(name)
        names = [name] if node is None else list(node.input)
        if any(one not in self._held for one in names) or len(self._held[names[0]].dims) != 1:
            return
        values, *rest = (self._array(one).astype(np.float32) for one in names)
        if rest:
            values = (values - (rest[1] if len(rest) > 1 else 0.0)) * rest[0]
        kept = f"qdq{16 if '16' in self._type(names[0]) else 8}" if rest else "fp32"
        yield Weight(module, "weight", kept, of_array(values / np.float32(np.sqrt(values.size))))

    def _carried(self, name: str) -> tuple[str, Rows, bool] | None:
        """How this value is kept, its rows, and whether it is turned over on its way; None when it is no weight."""
        turned = False
        while name not in self._held:
            node = self._made_by.get(name)
            if node is None:
                return None
            if node.op_type == "DequantizeLinear":
                return self._linear(node, turned)
            if node.op_type == "Transpose":
                turned = not turned
            elif node.op_type not in _CARRIED:
                return None
            name = node.input[0]
        if len(self._held[name].dims) != 2 or self._type(name) not in _FLOATS:
            return None
        return *self._plain(name), turned

    def _plain(self, name: str) -> tuple[str, Rows]:
        kind = self._type(name)
        if kind not in _FLOATS:
            raise StageError(f"{name} is kept as {kind}, which nothing here can compare")
        values = self._values(name)
        if kind == "BFLOAT16":
            halves = of_array(values)
            wide = Rows(*halves.shape, lambda a, b: _of_bf16(values.reshape(halves.shape)[a:b]))
            return "bf16", wide
        return _FLOATS[kind][1], of_array(values)

    def _blocks(self, names: list[str], rows: int, columns: int, bits: int, block: int) -> Rows:
        """The weights of MatMulNBits: [rows, blocks, bytes of a block], low bits first, less their zero point."""
        blocks = -(-columns // block)
        packed = self._values(self._root(names[0])).reshape(rows, blocks, -1).view(np.uint8)
        scales = self._values(self._root(names[1])).reshape(rows, blocks)
        zeros = self._zero_points(names[2] if len(names) > 2 else "", rows, blocks, bits)

        def take(start: int, stop: int) -> Any:
            levels = _unpacked(packed[start:stop], bits).astype(np.float32)
            levels = levels.reshape(stop - start, blocks, -1)[:, :, :block] - zeros(start, stop)[:, :, None]
            whole = levels * scales[start:stop, :, None].astype(np.float32)
            return whole.reshape(stop - start, -1)[:, :columns]

        def anew(start: int, stop: int, values: Any) -> Any:
            unit = scales[start:stop].astype(np.float32)
            low = -zeros(start, stop) * unit
            return _nearest(values, low, unit, block, bits)

        return Rows(rows, columns, take, anew)

    def _zero_points(self, name: str, rows: int, blocks: int, bits: int) -> Any:
        """What gives the zero points of rows `start` to `stop`, [rows, blocks]."""
        if not name:
            return lambda start, stop: np.full((stop - start, blocks), 1 << (bits - 1), np.float32)
        name = self._root(name)
        values = self._values(name)
        if self._type(name) in _FLOATS:
            table = values.reshape(rows, blocks)
            return lambda start, stop: table[start:stop].astype(np.float32)
        packed = values.reshape(rows, -1).view(np.uint8)
        return lambda start, stop: _unpacked(packed[start:stop], bits)[:, :blocks].astype(np.float32)

    def _looked_up(self, names: list[str], a: dict[str, Any]) -> tuple[str, Rows]:
        """The table of GatherBlockQuantized: [rows, columns] of integers, quantised along the columns."""
        kind, block = self._type(self._root(names[0])), int(a.get("block_size", 128))
        scales = self._values(self._root(names[1]))
        rows = scales.shape[0] if scales.ndim == 2 else int(self._held[self._root(names[0])].dims[0])
        scales = scales.reshape(rows, -1)
        blocks = scales.shape[1]
        bits = int(a.get("bits", 4)) if kind in ("UINT8", "INT8") else 4
        packed = self._values(self._root(names[0])).reshape(rows, -1).view(np.uint8)
        signed = kind.startswith("INT")
        columns = packed.shape[1] * 8 // bits
        middle = 0 if signed or kind == "UINT4" else 1 << (bits - 1)
        zero_name = self._root(names[2]) if len(names) > 2 and names[2] else ""
        zeros = self._values(zero_name).reshape(rows, -1).view(np.uint8) if zero_name else None

        def integers(part: Any) -> Any:
            levels = _unpacked(part, bits).astype(np.int16)
            return np.where(levels >= 1 << (bits - 1), levels - (1 << bits), levels) if signed else levels

        def take(start: int, stop: int) -> Any:
            levels = integers(packed[start:stop]).astype(np.float32)
            zero = integers(zeros[start:stop])[:, :blocks] if zeros is not None else np.full((1, 1), middle)
            shift = np.repeat(np.broadcast_to(zero, (stop - start, blocks)), block, axis=1)[:, :columns]
            scale = np.repeat(scales[start:stop].astype(np.float32), block, axis=1)[:, :columns]
            return (levels - shift) * scale

        def anew(start: int, stop: int, values: Any) -> Any:
            unit = scales[start:stop].astype(np.float32)
            zero = integers(zeros[start:stop])[:, :blocks] if zeros is not None else middle
            first = -(1 << (bits - 1)) if signed else 0
            return _nearest(values, (first - zero) * unit, unit, block, bits)

        return _integer(bits, block, bool(zero_name)), Rows(rows, columns, take, anew)

    def _linear(self, node: Any, turned: bool) -> tuple[str, Rows, bool] | None:
        """A weight of two dimensions that DequantizeLinear makes, whole: [rows, columns] as it is kept."""
        names = list(node.input)
        if any(name not in self._held for name in names) or len(self._held[names[0]].dims) != 2:
            return None
        a = self._attributes(node)
        whole = [self._array(name) for name in names]
        axis, block = int(a.get("axis", 1)) % 2, int(a.get("block_size", 0))
        scale = whole[1].astype(np.float32)
        zero = whole[2].astype(np.float32) if len(whole) > 2 else np.float32(0)
        if block:
            limit = tuple(slice(0, size) for size in whole[0].shape)
            scale = np.repeat(scale, block, axis=axis)[limit]
            zero = np.repeat(zero, block, axis=axis)[limit] if np.ndim(zero) else zero
        elif scale.ndim == 1 and scale.size > 1:
            across = (-1, 1) if axis == 0 else (1, -1)
            scale = scale.reshape(across)
            zero = zero.reshape(across) if np.ndim(zero) else zero
        bits = _PACKED.get(self._type(names[0]), 16)
        values = (whole[0].astype(np.float32) - zero) * scale
        return f"qdq{bits}b{block}" if block else f"qdq{bits}", of_array(values), turned

    def _root(self, name: str) -> str:
        """The initialiser that a chain of reshapes and casts begins with."""
        while name not in self._held:
            node = self._made_by.get(name)
            if node is None or node.op_type not in ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Cast"):
                raise StageError(f"{name}: no weight is found where it comes from")
            name = node.input[0]
        return name

    def _array(self, name: str) -> Any:
        """An initialiser as the library reads it, whole."""
        tensor = self._held[name]
        if not tensor.external_data:
            return self._onnx.numpy_helper.to_array(tensor)
        return self._onnx.numpy_helper.to_array(tensor, str(self._folder))

    def _values(self, name: str) -> Any:
        """An initialiser as it lies on the disk: mapped where it stands beside the graph; 4 bits two to a byte."""
        tensor = self._held[name]
        kind = self._type(name)
        width = _FLOATS[kind][0] if kind in _FLOATS else "<u1" if kind in _PACKED else ""
        if not width:
            raise StageError(f"{name} is kept as {kind}, which nothing here can compare")
        shape = tuple(tensor.dims)
        count = int(np.prod(shape, dtype=np.int64))
        if kind in ("INT4", "UINT4"):
            shape, count = (-1,), (count + 1) // 2
        if not tensor.external_data:
            raw = tensor.raw_data or self._array(name).tobytes()
            return np.frombuffer(raw, width, count).reshape(shape)
        about = {entry.key: entry.value for entry in tensor.external_data}
        file = about["location"]
        if file not in self._mapped:
            self._mapped[file] = np.memmap(self._folder / file, np.uint8, "r")
        start = int(about.get("offset", 0))
        stop = start + count * np.dtype(width).itemsize
        if stop > self._mapped[file].size:
            raise StageError(f"{file} ends before the weights of {name}; is it cut off?")
        return self._mapped[file][start:stop].view(width).reshape(shape)

    def _type(self, name: str) -> str:
        return str(self._onnx.TensorProto.DataType.Name(self._held[name].data_type))

    def _size(self, tensor: Any) -> int:
        kind = self._onnx.TensorProto.DataType.Name(tensor.data_type)
        count = int(np.prod(tuple(tensor.dims), dtype=np.int64))
        if kind in ("INT4", "UINT4"):
            return (count + 1) // 2
        return count * int(self._onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)

    def _attributes(self, node: Any) -> dict[str, Any]:
        return {one.name: self._onnx.helper.get_attribute_value(one) for one in node.attribute}


def _agreed(name: str, values: list[Any]) -> dict[str, Any]:
    """The one value of all, or a text with each that there is; nothing for none."""
    different = sorted(set(values), key=str)
    if len(different) < 2:
        return {name: different[0]} if different else {}
    return {name: ", ".join(map(str, different))}


def _module(name: str) -> str:
    """/model/layers.0/attn/q_proj/MatMul_Q4 → model.layers.0.attn.q_proj"""
    found = _PLACE.match(name)
    return (found.group(1) if found else name).replace("/", ".")


def _integer(bits: int, block: int, zero_point: Any) -> str:
    return f"int{bits}b{block}{'z' if zero_point else ''}"


def _unpacked(packed: Any, bits: int) -> Any:
    """Numbers of `bits` bits out of bytes, the lowest bits first, along the last axis."""
    if bits == 8:
        return packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    levels = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return levels.reshape(*packed.shape[:-1], -1)


def _nearest(values: Any, low: Any, unit: Any, block: int, bits: int) -> Any:
    """The nearest levels to values [rows, columns]; low and unit are [rows, blocks], the last block may be shorter."""
    columns = values.shape[1]
    low, unit = (np.repeat(one, block, axis=1)[:, :columns] for one in (low, unit))
    return nearest_level(values, low, unit, (1 << bits) - 1)


def _of_bf16(halves: Any) -> Any:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _turned(rows: Rows) -> Rows:
    """[inputs, outputs] as [outputs, inputs]. Columns of what lies on the disk are read across it."""
    whole = rows[:]
    return of_array(np.ascontiguousarray(whole.T))
