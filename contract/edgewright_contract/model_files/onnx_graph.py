"""What an ONNX file refers to outside of itself, read without onnx, without its weights, and within bounds.

The file is protobuf. It is walked in the file's own order, with a stack and not by recursion: into every message that
may hold a node, a tensor or a reference (subgraphs, functions, sparse tensors and the graphs of training too), past
everything else by seeking. So a file of many gigabytes with its weights inside costs no more than its graph.

What one may not do is merge as a parser would: where protobuf takes the last of two values, all are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from edgewright_contract.model_files import FileUnsafe, TensorSpan

# A graph of 5,000 nodes, as a language model of eight billion weights has, takes some hundred thousand steps.
MAX_STEPS: Final = 1 << 20
_STEPS_OF_A_MESSAGE: Final = 4
MAX_DEPTH: Final = 64
MAX_TEXT_BYTES: Final = 1 << 12
MAX_REFERENCES: Final = 10_000
# Attributes of a node, entries of a tensor, and values where one is meant.
MAX_CHILDREN: Final = 256
MAX_VALUES: Final = 4

# What onnxruntime has operators for by itself. Those of another domain come in a library of native code.
DOMAINS: Final = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"}
    | {
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.microsoft.dml",
        "com.ms.internal.nhwc",
        "com.microsoft.experimental",
    }
)

# Message → number of the field → message that it holds.
_CHILDREN: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "function": {7: "node", 11: "attribute"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {13: "entry"},
        "entry": {},
    }
)
# Message → number of the field → name of a text or number that counts.
_VALUES: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "function": {10: "domain"},
        "node": {4: "op_type", 7: "domain"},
        "attribute": {1: "name", 3: "i", 4: "s"},
        "tensor": {8: "name", 14: "data_location"},
        "entry": {1: "key", 2: "value"},
    }
)
_RAW_DATA: Final = 9  # of a tensor
_TOO_LONG: Final = "\0"  # no name and no path has it
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WHOLE = re.compile(r"[0-9]{1,18}")
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class OnnxGraph:
    """`external`: each file that weights are read from, as the graph spells it, with the bytes that it must have at
    least. `contexts`: files with graphs that a vendor compiled. `foreign`: domains of operators that neither
    onnxruntime has nor the model itself defines."""

    external: Mapping[str, int]
    contexts: frozenset[str]
    foreign: frozenset[str]


def read(path: Path) -> OnnxGraph:
    """What the file at `path` refers to. Raises FileUnsafe, OSError."""
    with open(path, "rb", buffering=0) as file:
        return _Walk(file).run()


def tensor_spans(path: Path) -> dict[str, list[TensorSpan]]:
    """Where the weights of the graph's tensors lie: file as the graph spells it → spans in the graph's order; "" is
    `path` itself. Tensors that say no length are left out. Raises FileUnsafe, OSError."""
    with open(path, "rb", buffering=0) as file:
        walk = _Walk(file, places=True)
        walk.run()
        return walk.places


@dataclass(slots=True)
class _Message:
    kind: str
    end: int
    in_function: bool
    values: dict[str, list[str | int]] = field(default_factory=dict)
    children: list[_Message] = field(default_factory=list)
    raw: tuple[int, int] = (0, 0)  # where a tensor's own bytes lie, and how many they are

    def texts(self, name: str) -> list[str]:
        return [value for value in self.values.get(name, []) if isinstance(value, str)]


class _Walk:
    def __init__(self, file: BinaryIO, *, places: bool = False) -> None:
        self.places: dict[str, list[TensorSpan]] = {}
        self._keeps_places = places  # a device has no use for them
        self._file = file
        self._size = file.seek(0, 2)
        self._buffer, self._start, self._at = b"", 0, 0
        self._external: dict[str, int] = {}
        self._contexts: set[str] = set()
        self._domains: set[str] = set()
        self._defined: set[str] = set()

    def run(self) -> OnnxGraph:
        stack, graphs = [_Message("model", self._size, False)], 0
        steps = 0
        while True:
            while stack and self._at == stack[-1].end:
                self._leave(stack.pop(), stack)
            if not stack:
                break
            child = self._field(stack[-1])
            steps += 1
            if child is not None:
                steps += _STEPS_OF_A_MESSAGE
                graphs += child.kind == "graph"
                stack.append(child)
                if len(stack) > MAX_DEPTH:
                    raise FileUnsafe(f"it is nested more than {MAX_DEPTH} deep")
            if steps > MAX_STEPS:
                raise FileUnsafe("its graph is larger than any model's")
        if not graphs:
            raise FileUnsafe("not an ONNX model: there is no graph in it")
        foreign = self._domains - DOMAINS - self._defined
        return OnnxGraph(MappingProxyType(self._external), frozenset(self._contexts), frozenset(foreign))

    def _field(self, message: _Message) -> _Message | None:
        """Read one field of `message`, past its end; a message to look into is entered instead."""
        tag = self._varint(message.end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise FileUnsafe(f"not an ONNX model: no protobuf at byte {self._at}")
        name = _VALUES.get(message.kind, {}).get(number)
        if wire == _VARINT:
            value = self._varint(message.end)
            if name:
                self._keep(message, name, value)
        elif wire == _BYTES:
            length = self._varint(message.end)
            if length > message.end - self._at:
                raise FileUnsafe(f"a field at byte {self._at} goes on behind the end of what it is in")
            child = _CHILDREN[message.kind].get(number)
            if child is not None:
                return _Message(child, self._at + length, message.in_function or child == "function")
            if name:
                self._keep(message, name, self._text(length))
            elif number == _RAW_DATA and message.kind == "tensor":
                message.raw = self._at, length
            self._at += length
        elif wire in (_FIXED64, _FIXED32):
            self._at += 8 if wire == _FIXED64 else 4
            if self._at > message.end:
                raise FileUnsafe(f"it ends within a field, at byte {message.end}")
        else:
            raise FileUnsafe(f"not an ONNX model: no protobuf at byte {self._at}")
        return None

    def _keep(self, message: _Message, name: str, value: str | int) -> None:
        values = message.values.setdefault(name, [])
        values.append(value)
        if len(values) > MAX_VALUES:
            raise FileUnsafe(f"a value ({name}) is there more than {MAX_VALUES} times")

    def _leave(self, message: _Message, stack: list[_Message]) -> None:
        """All of `message` was read."""
        if message.kind in ("entry", "attribute"):
            parent = stack[-1]
            if parent.kind in ("tensor", "node"):
                parent.children.append(message)
                if len(parent.children) > MAX_CHILDREN:
                    raise FileUnsafe(f"a {parent.kind} with more than {MAX_CHILDREN} of what describes it")
        elif message.kind == "tensor":
            self._tensor(message)
        elif message.kind == "node":
            self._node(message)
        elif message.kind == "function":
            self._defined.update(message.texts("domain"))

    def _tensor(self, tensor: _Message) -> None:
        entries: dict[str, str] = {}
        for entry in tensor.children:
            for key in entry.texts("key"):
                if key in entries:
                    raise FileUnsafe(f"a tensor says twice where its data is ({key})")
                entries[key] = (entry.texts("value") or [""])[-1]
        if not entries:
            if 1 in tensor.values.get("data_location", []):
                raise FileUnsafe("a tensor has its data elsewhere, and does not say where")
            self._place(tensor, "", *tensor.raw)
            return
        location = entries.get("location", "")
        offset, length = (entries.get(key, "0") for key in ("offset", "length"))
        for number in (offset, length):
            if not _WHOLE.fullmatch(number):
                raise FileUnsafe(f"a tensor's data in {location!r}: {number!r} is no position or length")
        self._external[location] = max(self._external.get(location, 0), int(offset) + int(length))
        self._bounded(len(self._external))
        self._place(tensor, location, int(offset), int(length))

    def _place(self, tensor: _Message, location: str, offset: int, length: int) -> None:
        if self._keeps_places and length:
            name = next(iter(tensor.texts("name")), "")
            self.places.setdefault(location, []).append(TensorSpan(name, offset, length))

    def _node(self, node: _Message) -> None:
        self._domains.update(node.texts("domain"))
        self._bounded(len(self._domains))
        if "EPContext" not in node.texts("op_type"):
            return
        if node.in_function:
            raise FileUnsafe("a function with a vendor's compiled graph, which no compiler makes")
        attributes = {name: attribute for attribute in node.children for name in attribute.texts("name")}
        if len(attributes) != len(node.children):
            raise FileUnsafe("a node with an attribute that is there twice, or has no name")
        mode, context = attributes.get("embed_mode"), attributes.get("ep_cache_context")
        beside = mode is not None and mode.values.get("i", [0]) != [1]
        if beside and context is not None:
            self._contexts.update(context.texts("s"))
        source = attributes.get("onnx_model_filename")  # of which some vendors take weights anew
        if source is not None:
            self._contexts.update(text for text in source.texts("s") if text)
        self._bounded(len(self._contexts))

    def _bounded(self, references: int) -> None:
        if references > MAX_REFERENCES:
            raise FileUnsafe(f"it refers to more than {MAX_REFERENCES:,} others")

    def _text(self, length: int) -> str:
        if length > MAX_TEXT_BYTES:
            return _TOO_LONG
        return self._peek(length).decode("utf-8", "backslashreplace")

    def _varint(self, end: int) -> int:
        data = self._peek(min(10, end - self._at))
        value = 0
        for place, byte in enumerate(data):
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                self._at += place + 1
                return value
        raise FileUnsafe(f"not an ONNX model: no protobuf at byte {self._at}")

    def _peek(self, count: int) -> bytes:
        here = self._at - self._start
        if not 0 <= here <= len(self._buffer) - count:
            self._file.seek(self._at)
            self._start, here = self._at, 0
            self._buffer = self._file.read(max(count, _READ_BYTES))
            if len(self._buffer) < count:
                raise FileUnsafe("it became shorter while it was read")
        return self._buffer[here : here + count]
