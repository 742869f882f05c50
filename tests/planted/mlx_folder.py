"""Weights and config of an MLX folder, changed in place."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from tests.planted.weights import Matrix, bf16, plain

_TYPES = {"U32": "<u4", "U8": "u1", "BF16": "<u2", "F16": "<f2", "F32": "<f4"}


class MlxFolder:
    """The one safetensors file of an artifact's folder, mapped for writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "model.safetensors"
        with self.path.open("r+b") as stream:
            self._bytes = mmap.mmap(stream.fileno(), 0)
        length = int.from_bytes(self._bytes[:8], "little")
        self._header = json.loads(self._bytes[8 : 8 + length])
        self._start = 8 + length

    def tensor(self, name: str) -> Matrix:
        base = name.removesuffix(".weight")
        weight, kind = self._array(name)
        if f"{base}.scales" not in self._header:
            return Matrix([weight], [bf16(weight) if kind == "BF16" else plain(weight)])
        reals = [self._array(part) for part in (f"{base}.scales", f"{base}.biases")]
        return Matrix(
            [weight, *(array for array, _ in reals)],
            [bf16(array) if kind == "BF16" else plain(array) for array, kind in reals],
        )

    def save(self) -> None:
        self._bytes.flush()

    def _array(self, name: str) -> tuple[Any, str]:
        about = self._header[name]
        start, stop = about["data_offsets"]
        kind = _TYPES[about["dtype"]]
        count = (stop - start) // np.dtype(kind).itemsize
        flat = np.frombuffer(self._bytes, kind, count, self._start + start)
        shape = about["shape"] if len(about["shape"]) > 1 else [1, *about["shape"]]
        return flat.reshape(shape), about["dtype"]


def change_json(path: Path, **values: Any) -> None:
    """Put values into a JSON object that lies in a file; None takes a key away."""
    document = json.loads(path.read_bytes())
    document |= values
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def add_tensor(path: Path, name: str, values: Any) -> None:
    """One more tensor of a safetensors file, in bfloat16; `values` are float32."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    halves = np.zeros(values.shape, np.uint16)
    bf16(halves)[1](values)
    header[name] = {
        "dtype": "BF16",
        "shape": list(values.shape),
        "data_offsets": [len(data), len(data) + halves.nbytes],
    }
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    path.write_bytes(len(said).to_bytes(8, "little") + said + data + halves.tobytes())
