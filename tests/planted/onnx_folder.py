"""Weights, graph and settings of an ONNX folder, changed in place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.planted.weights import Matrix, plain

_FLOATS: Final = {"FLOAT": "<f4", "FLOAT16": "<f2"}
_NAMES: Final = (
    (".self_attn.q_proj", ".attn.qkv_proj"),
    (".self_attn.k_proj", ".attn.qkv_proj"),
    (".self_attn.v_proj", ".attn.qkv_proj"),
    (".self_attn.o_proj", ".attn.o_proj"),
)


class OnnxFolder:
    """model.onnx of an artifact's folder and the file of its weights, mapped for writing.

    `heads` are those of queries and of keys: the builder puts the rows of query, key and value into one matrix.
    """

    def __init__(self, folder: Path, heads: tuple[int, int] = (4, 2)) -> None:
        import onnx

        self._onnx: Any = onnx
        self.folder, self._heads = folder, heads
        self.model: Any = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        self._held = {one.name: one for one in self.model.graph.initializer}
        self._changed: dict[str, Any] = {}
        data = folder / "model.onnx.data"
        self._bytes = np.memmap(data, np.uint8, "r+") if data.is_file() else None

    def tensor(self, name: str) -> Matrix:
        base = name.removesuffix(".weight")
        module = base
        for ours, theirs in _NAMES:
            module = module.replace(ours, theirs)
        for node in self.model.graph.node:
            if _module(node.name) == module and (found := self._of(node)):
                arrays, reals = found
                rows = self._rows(base, len(arrays[0]))
                return Matrix([array[rows] for array in arrays], [plain(array[rows]) for array in reals])
        raise KeyError(name)

    def nodes(self, kind: str) -> list[Any]:
        """Nodes of the graph of this kind, in order."""
        return [node for node in self.model.graph.node if node.op_type == kind]

    def array(self, name: str) -> Any:
        """An initialiser, to be written to; of a value that is one in another shape or type, that one."""
        tensor = self._held[self._root(name)]
        name = tensor.name
        kind = self._onnx.TensorProto.DataType.Name(tensor.data_type)
        width = np.dtype(_FLOATS.get(kind, "u1"))
        if tensor.external_data:
            about = {entry.key: entry.value for entry in tensor.external_data}
            start, length = int(about.get("offset", 0)), int(about["length"])
            assert self._bytes is not None
            return self._bytes[start : start + length].view(width).reshape(tuple(tensor.dims))
        if name not in self._changed:
            self._changed[name] = self._onnx.numpy_helper.to_array(tensor).copy()
        return self._changed[name]

    def save(self) -> None:
        for name, array in self._changed.items():
            self._held[name].CopyFrom(self._onnx.numpy_helper.from_array(array, name))
        if self._bytes is not None:
            self._bytes.flush()
        self._onnx.save(self.model, str(self.folder / "model.onnx"))

    def put(self, name: str, array: Any) -> str:
        """A new initialiser within the graph's own file; its name."""
        tensor = self._onnx.numpy_helper.from_array(array, name)
        self.model.graph.initializer.append(tensor)
        return name

    def _root(self, name: str) -> str:
        made_by = {out: node for node in self.model.graph.node for out in node.output}
        while name not in self._held:
            node = made_by[name]
            assert node.op_type in ("Reshape", "Identity", "Cast"), node.op_type
            name = node.input[0]
        return name

    def _of(self, node: Any) -> tuple[list[Any], list[Any]] | None:
        """The arrays with an entry a row, and those of them that are real numbers."""
        names = list(node.input)
        if node.op_type == "MatMulNBits":
            rows = next(one.i for one in node.attribute if one.name == "N")
            parts = [self.array(one).reshape(rows, -1) for one in names[1:4] if one]
            return parts, parts[1:2]
        if node.op_type == "GatherBlockQuantized":
            scales = self.array(names[2])
            parts = [self.array(one).reshape(len(scales), -1) for one in (names[0], *names[2:4]) if one]
            return parts, parts[1:2]
        if node.op_type == "Gather" and names[0] in self._held:
            table = self.array(names[0])
            return [table], [table]
        if node.op_type == "MatMul" and names[1] in self._held:
            table = self.array(names[1]).T
            return [table], [table]
        return None

    def _rows(self, base: str, count: int) -> slice:
        part = base.rpartition(".")[2]
        if part not in ("q_proj", "k_proj", "v_proj"):
            return slice(0, count)
        queries, keys = self._heads
        width = count // (queries + 2 * keys)
        start = {"q_proj": 0, "k_proj": queries, "v_proj": queries + keys}[part] * width
        return slice(start, start + (queries if part == "q_proj" else keys) * width)


def _module(name: str) -> str:
    """/model/layers.0/attn/q_proj/MatMul_Q4 → model.layers.0.attn.q_proj"""
    found = re.match(r"^/?(.*?)/[^/]+$", name)
    return (found.group(1) if found else name).replace("/", ".")


def changed(folder: Path, change: Callable[[OnnxFolder], None]) -> None:
    """Open, change, save."""
    opened = OnnxFolder(folder)
    change(opened)
    opened.save()
