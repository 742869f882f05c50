"""How the demo makes bad releases: real artifacts, really damaged.

Two kinds. `break_weights` makes folders that are shipped and signed like any artifact, but that no engine can load.
`flipped` damages a good artifact inside the controller's store after it was signed, and mends it again at the end,
because the store is also the cache of the next demo.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgewright_controller.demo.children import DemoError

WEIGHTS: Final = (".gguf", ".safetensors", ".data")
FLIP: Final = 0xFF
HEADER_BYTES: Final = 16 << 20

# What every engine of the format asks for, and a name of the same length that none knows: a tensor, or in ONNX, where
# tensors go by what the graph calls them, an operator. The file stays well formed, so that only the engine itself can
# find out.
_RENAMED: Final = {
    ".gguf": (b"output_norm.weight", b"output_nxrm.weight"),
    ".safetensors": (b"model.norm", b"model.nxrm"),
    ".onnx": (b'"\x13GroupQueryAttention', b'"\x13GroupQxeryAttention'),
}


def break_weights(good: Path, out: Path) -> None:
    """Make `out` a copy of the artifact `good` that no engine can load. Done again, it gives the same bytes.

    Something that the engine needs gets another name.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(good, partial)
    for path in partial.rglob("*"):
        if path.is_file():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    models = [path for path in sorted(partial.rglob("*")) if path.suffix in _RENAMED]
    if not models:
        raise DemoError(f"{good}: no model ({', '.join(_RENAMED)})")
    for model in models:
        _rename(model, *_RENAMED[model.suffix])
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _rename(file: Path, old: bytes, new: bytes) -> None:
    with file.open("r+b") as data:
        place = data.read(HEADER_BYTES).find(old)
        if place < 0:
            raise DemoError(f"{file}: no {old!r} in it")
        data.seek(place)
        data.write(new)


def largest_weights(artifact: Path) -> Path:
    """The file of an artifact that holds most of its weights."""
    files = [path for path in artifact.rglob("*") if path.is_file() and path.suffix in WEIGHTS]
    if not files:
        raise DemoError(f"{artifact}: no weights ({', '.join(WEIGHTS)})")
    return max(files, key=lambda path: path.stat().st_size)


@contextmanager
def flipped(artifacts: Sequence[Path]) -> Iterator[None]:
    """While the block runs, one byte in the middle of each artifact's weights is another one."""
    files = [largest_weights(artifact) for artifact in artifacts]
    for file in files:
        _flip(file)
    try:
        yield
    finally:
        for file in files:
            _flip(file)


def _flip(file: Path) -> None:
    mode = file.stat().st_mode
    file.chmod(mode | stat.S_IWUSR)
    with file.open("r+b") as data:
        data.seek(file.stat().st_size // 2)
        byte = data.read(1)[0]
        data.seek(-1, os.SEEK_CUR)
        data.write(bytes([byte ^ FLIP]))
    file.chmod(mode)
