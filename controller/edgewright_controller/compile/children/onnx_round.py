"""Float ONNX folder → the same model with its weights rounded in blocks, by onnxruntime's own kernels.

The constant matrices of MatMul become MatMulNBits, an embedding's table becomes GatherBlockQuantized. Where the output
layer is the embedding again, both read the one rounded table. Scales are kept in float16, as GGUF has them, with a cast
that onnxruntime computes once when it loads the graph. Needs neither torch nor the checkpoint.

A graph whose matrices the checkpoint had rounded already keeps them; only their scales become float16.

Request: {"parent": folder, "out": folder, "bits": 4 | 8, "block": weights that share a scale, "symmetric": true,
"embedding": whether it is rounded too, "accuracy": onnxruntime's accuracy_level}
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from stage import Say, StageError, run

MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
_DOMAIN = "com.microsoft"


def round_weights(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "reading the graph")
    import onnx_ir as ir

    parent, out = Path(request["parent"]), Path(request["out"])
    model = ir.load(parent / MODEL)
    model.graph.opset_imports.setdefault(_DOMAIN, 1)
    _Rounding(model.graph, request).all(say)
    out.mkdir()
    say(0.9, "writing")
    # A shape must stand in the graph itself, where it is read before the weights are.
    ir.save(model, out / MODEL, external_data=WEIGHTS, size_threshold_bytes=64)
    for file in parent.iterdir():
        if file.name not in (MODEL, WEIGHTS):
            shutil.copyfile(file, out / file.name)
    return {}


def blocks(weights: Any, bits: int, block: int, symmetric: bool) -> tuple[Any, Any, Any]:
    """[inputs, outputs] of floats → uint8 [outputs, blocks, block * bits / 8], scales [outputs, blocks], zero points.

    An input's last block is filled with zeros. Zero points are packed as the weights are; None when symmetric.
    """
    from onnxruntime.capi import _pybind_state as kernels

    kernel = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}[bits]
    inputs, outputs = weights.shape
    count, each = -(-inputs // block), 8 // bits
    weights = np.ascontiguousarray(np.pad(weights, ((0, count * block - inputs), (0, 0))), np.float32)
    packed = np.zeros((outputs, count, block // each), np.uint8)
    scales = np.zeros((outputs, count), np.float32)
    zeros = np.zeros((outputs, -(-count // each)), np.uint8)
    kernel(packed, weights, scales, zeros, block, outputs, inputs, symmetric)
    # A scale that float16 cannot hold stays as it is.
    if scales.max(initial=0.0) <= np.finfo(np.float16).max:
        scales = scales.astype(np.float16)
    return packed, scales, None if symmetric else zeros


class _Rounding:
    """Exchanges a graph's nodes. What one table gave is kept for whoever reads it again."""

    def __init__(self, graph: Any, request: dict[str, Any]) -> None:
        self._graph = graph
        self._bits, self._block = request["bits"], request["block"]
        self._symmetric, self._accuracy = request["symmetric"], request["accuracy"]
        self._embedding = request["embedding"]
        self._tables: list[tuple[Any, list[Any]]] = []  # of embeddings, with their rounded values

    def all(self, say: Say) -> None:
        nodes = list(self._graph)
        gathers = [node for node in nodes if node.op_type == "Gather" and self._table(node, 0)] * self._embedding
        matrices = [node for node in nodes if node.op_type == "MatMul" and self._table(node, 1)]
        rounded = [node for node in nodes if node.op_type == "MatMulNBits"]
        if not matrices and not rounded:
            raise StageError("the graph has no weights to round; has ModelBuilder changed its form?")
        for node in rounded:
            self._narrow(node)
        for done, node in enumerate([*gathers, *matrices]):
            say(0.1 + 0.8 * done / (len(gathers) + len(matrices)), node.name or node.op_type)
            (self._gather if node.op_type == "Gather" else self._matrix)(node)
        used = {value.name for node in self._graph for value in node.inputs if value is not None}
        for name in [name for name in self._graph.initializers if name not in used]:
            del self._graph.initializers[name]

    def _table(self, node: Any, place: int) -> bool:
        value = node.inputs[place].const_value
        return value is not None and value.dtype.name in ("FLOAT", "FLOAT16") and len(value.shape) == 2

    def _gather(self, node: Any) -> None:
        source = node.inputs[0]
        table = source.const_value.numpy()
        rows, width = table.shape
        if width * self._bits % 8:
            return  # such a row cannot be packed by itself
        packed, *rest = blocks(table.T, self._bits, self._block, self._symmetric)
        flat = packed.reshape(rows, -1)[:, : width * self._bits // 8]
        values = self._put(node, source, np.ascontiguousarray(flat), *rest)
        if width % self._block == 0:
            self._tables.append((table, values))
        attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": self._block, "bits": self._bits}
        self._replace(node, "GatherBlockQuantized", [values[0], node.inputs[1], *values[1:]], attributes)

    def _matrix(self, node: Any) -> None:
        import onnx_ir as ir

        source = node.inputs[1]
        weights = source.const_value.numpy()
        inputs, outputs = weights.shape
        attributes = {"K": inputs, "N": outputs, "bits": self._bits, "block_size": self._block}
        if self._accuracy:
            attributes["accuracy_level"] = self._accuracy
        tied = next((values for table, values in self._tables if _transposed(table, weights)), None)
        if tied is None:
            values = self._put(node, source, *blocks(weights, self._bits, self._block, self._symmetric))
        else:
            shape = [outputs, inputs // self._block, self._block * self._bits // 8]
            wanted = self._initializer(f"{source.name}_shape", np.array(shape, np.int64))
            reshaped = ir.node("Reshape", [tied[0], wanted], name=f"{node.name}_tied")
            reshaped.outputs[0].name = f"{source.name}_tied"
            reshaped.outputs[0].shape, reshaped.outputs[0].dtype = ir.Shape(shape), ir.DataType.UINT8
            self._graph.insert_before(node, reshaped)
            values = [reshaped.outputs[0], *tied[1:]]
        self._replace(node, "MatMulNBits", [node.inputs[0], *values], attributes)

    def _put(self, node: Any, source: Any, packed: Any, scales: Any, zeros: Any) -> list[Any]:
        """The inputs that stand for `source` before `node`: levels, scales of the kind that it computes in, and zero
        points where there are any."""
        parts = {f"Q{self._bits}": packed, "scales": scales, "zero_points": zeros}
        values = [self._initializer(f"{source.name}_{part}", data) for part, data in parts.items() if data is not None]
        if values[1].dtype != source.const_value.dtype:
            values[1] = self._cast(node, values[1], source.const_value.dtype)
        return values

    def _narrow(self, node: Any) -> None:
        """Keep the scales of a node in float16, where they are a float32 that float16 can hold."""
        value = node.inputs[2]
        scales = value.const_value.numpy()
        if scales.dtype != np.float32 or np.abs(scales).max(initial=0.0) > np.finfo(np.float16).max:
            return
        half = self._initializer(f"{value.name}_half", scales.astype(np.float16))
        node.replace_input_with(2, self._cast(node, half, value.const_value.dtype))

    def _cast(self, node: Any, value: Any, kind: Any) -> Any:
        import onnx_ir as ir

        cast = ir.node("Cast", [value], attributes={"to": int(kind)}, name=f"{value.name}_cast")
        made = cast.outputs[0]
        made.name, made.shape, made.dtype = f"{value.name}_as_{kind.name.lower()}", value.shape, kind
        self._graph.insert_before(node, cast)
        return made

    def _initializer(self, name: str, data: Any) -> Any:
        import onnx_ir as ir

        tensor = ir.tensor(data, name=name)
        value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
        self._graph.register_initializer(value)
        return value

    def _replace(self, node: Any, kind: str, inputs: list[Any], attributes: dict[str, int]) -> None:
        import onnx_ir as ir

        (old,) = node.outputs
        new = ir.node(
            kind, inputs, attributes=attributes, domain=_DOMAIN, name=f"{node.name}_Q{self._bits}", num_outputs=1
        )
        value = new.outputs[0]
        value.name, value.shape, value.type = old.name, old.shape, old.type
        # Also where it is an output of the graph: the runtime asks for it by its name.
        ir.convenience.replace_nodes_and_values(self._graph, node, [node], [new], [old], [value])


def _transposed(table: Any, weights: Any) -> bool:
    return table.shape == weights.shape[::-1] and bool(np.array_equal(table.T, weights))


if __name__ == "__main__":
    sys.exit(run(round_weights))
