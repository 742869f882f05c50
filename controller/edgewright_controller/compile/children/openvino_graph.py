"""What stands in an OpenVINO graph (IR): its weights as the runtime computes with them, and what is wired into it.
Imported by the stages that measure; needs OpenVINO and numpy.

optimum-intel keeps the checkpoint's names: a weight is a constant `self.NAME.weight`, or once compressed
`self.NAME._openvino_orig_weight` with a chain of nodes behind it that restores it; a norm's weight has no name of its
own, and is known by the multiplication that reads it, `__module.NAME/…`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from source_tensors import Rows, of_array
from stage import StageError

MODEL = "openvino_model.xml"
_COMPRESSED = "._openvino_orig_weight"
_RESTORING = ("Convert", "Subtract", "Multiply", "Reshape")
_BITS = {"u4": 4, "i4": 4, "u8": 8, "i8": 8}
_FLOATS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_ACTIVATIONS = {"Swish": "silu", "Relu": "relu", "Gelu ERF": "gelu", "Gelu TANH": "gelu_pytorch_tanh"}
# Constants of so few numbers are a norm's epsilon or an exponent, no weights.
_FEW = 8
_MODULE = re.compile(r"__module\.(?P<name>[^/]+)/aten::mul/")


@dataclass(frozen=True)
class Weight:
    """A tensor under the checkpoint's name. `run`: weights that share a scale, 1 where there is none."""

    name: str
    type: str
    run: int
    rows: Rows


class Graph:
    """The graph in a folder. Raises StageError when there is none."""

    def __init__(self, folder: str) -> None:
        import openvino

        file = Path(folder, MODEL)
        if not file.is_file():
            raise StageError(f"{file.name}: is not in the artifact")
        self._core = openvino.Core()
        self.model = self._core.read_model(str(file))
        self._nodes = list(self.model.get_ordered_ops())

    @property
    def bytes(self) -> int:
        """Of all constants: weights, scales, zero points, and the little else."""
        return sum(node.get_byte_size() for node in self._constants())

    def weights(self) -> Iterator[Weight]:
        """All weights, one restored at a time, as OpenVINO itself restores them."""
        for node in self._constants():
            name = self._name(node)
            if name is None:
                continue
            levels = node.get_element_type().get_type_name()
            if levels in _FLOATS:
                yield Weight(name, _FLOATS[levels], 1, of_array(self._restored(node, ("Convert",))))
                continue
            shape = list(node.get_output_shape(0))
            run, grouped = shape[-1], len(shape) == 3
            zero = any(one.get_friendly_name().startswith(f"{node.get_friendly_name()}/zero") for one in self._nodes)
            # One scale for a row has a type of its own, however long the row is.
            kind = f"int{_BITS[levels]}b{run if grouped else 'row'}" if levels in _BITS else levels
            yield Weight(name, kind + ("z" if zero else ""), run, of_array(self._restored(node, _RESTORING)))

    def hyperparameters(self) -> dict[str, Any]:
        """What is wired into the graph, by the names of quality/hyperparameters.py."""
        attention = [node for node in self._nodes if node.get_type_name() == "ScaledDotProductAttention"]
        found: dict[str, Any] = {"layers": len(attention)} if attention else {}
        scales = [self._number(node, 4) for node in attention if len(node.inputs()) > 4]
        epsilons = [
            self._number(node, 1)
            for node in self._nodes
            if node.get_type_name() == "Add" and "norm/aten::add/" in node.get_friendly_name()
        ]
        acts = [
            _activation(node)
            for node in self._nodes
            if ".act_fn/" in node.get_friendly_name() and node.get_type_name() not in ("Constant", "Convert")
        ]
        for ours, values in (("attention_scale", scales), ("norm_epsilon", epsilons), ("activation", acts)):
            found |= _agreed(ours, values)
        return found | self._angles()

    def _constants(self) -> list[Any]:
        return [node for node in self._nodes if node.get_type_name() == "Constant"]

    def _name(self, node: Any) -> str | None:
        """The checkpoint's name of what this constant is, None where it is no weight."""
        name = node.get_friendly_name()
        if name.endswith(_COMPRESSED):
            return f"{name.removesuffix(_COMPRESSED).removeprefix('self.')}.weight"
        if name.startswith("self.") and name.endswith((".weight", ".bias")):
            return str(name.removeprefix("self."))
        if name.startswith("self.") or int(np.prod(list(node.get_output_shape(0)))) <= _FEW:
            return None
        for reader in _readers(self._end(node, ("Convert",))):
            if reader.get_type_name() == "Multiply" and (found := _MODULE.match(reader.get_friendly_name())):
                return f"{found['name']}.weight"
        return None

    def _end(self, node: Any, restoring: tuple[str, ...]) -> Any:
        """The last of the nodes that restore what this constant stands for."""
        while True:
            readers = _readers(node)
            if len(readers) != 1 or readers[0].get_type_name() not in restoring:
                return node
            node = readers[0]

    def _restored(self, node: Any, restoring: tuple[str, ...]) -> Any:
        import openvino

        end = self._end(node, restoring)
        if end is node:
            return np.asarray(node.data, np.float32)
        part = openvino.Model([end.output(0)], [])
        done = self._core.compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({})
        return np.asarray(done[0], np.float32)

    def _number(self, node: Any, place: int) -> float | str:
        source = node.input_value(place).get_node()
        while source.get_type_name() in ("Convert", "ConvertLike") and source.inputs():
            source = source.input_value(0).get_node()
        return float(source.data.reshape(-1)[0]) if source.get_type_name() == "Constant" else "not a constant"

    def _angles(self) -> dict[str, Any]:
        """Angles of one step, which the graph multiplies with the positions."""
        tables = [
            np.asarray(node.data, np.float64).reshape(-1)
            for node in self._constants()
            if any("rotary_emb/aten::matmul" in one.get_friendly_name() for one in _readers(node))
        ]
        if len(tables) != 1 or not tables[0].size or tables[0].min() <= 0.0:
            return {}
        return {"rope_slowest": float(tables[0].min()), "rope_middle": float(np.exp(np.log(tables[0]).mean()))}


def _activation(node: Any) -> str:
    """By transformers' name; one that is not known here keeps its own, and so is another than any source's."""
    kind = str(node.get_type_name())
    if kind == "Gelu":
        kind += f" {str(node.get_attributes().get('approximation_mode')).upper()}"
    return _ACTIVATIONS.get(kind, kind)


def _readers(node: Any) -> list[Any]:
    return [one.get_node() for one in node.output(0).get_target_inputs()]


def _agreed(name: str, values: list[Any]) -> dict[str, Any]:
    """Where nodes that should agree do not, a text with all of theirs, which no number is equal to."""
    there = list(dict.fromkeys(values))
    return {name: there[0] if len(there) == 1 else ", ".join(map(str, there))} if there else {}
