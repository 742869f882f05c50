"""What the bytes of an artifact's files are: headers, tensors, and what nobody looks into.

Tensors of two versions of a model lie at other positions as soon as a header grew by a byte; by their names they are
found again. Headers are read by the bounded readers that also judge model files. A file whose header cannot be read is
opaque, which costs bytes on the wire later and nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from edgewright_contract.bundle import Bundle
from edgewright_contract.model_files import FileUnsafe, TensorSpan, gguf_header, onnx_graph, safetensors_header
from edgewright_controller import log

# What lies between two tensors to align them, up to a page of the largest kind, goes with the one before.
MAX_PADDING_BYTES: Final = 64 << 10
# Tensors inside of a graph's own file are mostly single numbers; smaller ones are left among what describes them.
MIN_INSIDE_BYTES: Final = 64 << 10

_log = log.of(__name__)


class Kind(enum.Enum):
    """What a region is."""

    HEADER = "header"
    TENSOR = "tensor"
    OPAQUE = "opaque"


@dataclass(frozen=True)
class Region:
    """Bytes of a file that belong together: `size` of them from `start` on. `name` is a tensor's, else empty."""

    start: int
    size: int
    kind: Kind
    name: str = ""

    @property
    def end(self) -> int:
        """The position behind its last byte."""
        return self.start + self.size


# Path → the regions of the file, side by side from its first byte to its last; none for an empty file.
Layout = dict[str, tuple[Region, ...]]


def layout(bundle: Bundle, folder: Path) -> Layout:
    """The regions of each file of `bundle`, which stand below `folder`. Raises OSError."""
    files = {file.path: file.size for file in bundle.files}
    spans: dict[str, list[TensorSpan]] = {path: [] for path in files}
    for path in files:
        for where, found in _spans(folder, path):
            if where in spans:
                spans[where] += found
    rest = {path: Kind.HEADER if _suffix(path) in _DESCRIBED else Kind.OPAQUE for path in files}
    return {path: tuple(regions(size, spans[path], rest[path])) for path, size in files.items()}


def regions(size: int, spans: Iterable[TensorSpan], rest: Kind) -> Iterator[Region]:
    """A file of `size` bytes as its tensors and, of kind `rest`, what is between them. Pure.

    Of tensors that share bytes, the first has them; one that is not within the file is left out.
    """
    inside = (span for span in spans if 0 < span.size <= size - span.offset)
    kept: list[TensorSpan] = []
    for span in sorted(inside, key=lambda span: (span.offset, -span.size, span.name)):
        if not kept or span.offset >= kept[-1].offset + kept[-1].size:
            kept.append(span)
    at = 0
    for number, span in enumerate(kept):
        if span.offset > at:
            yield Region(at, span.offset - at, rest)
        following = kept[number + 1].offset if number + 1 < len(kept) else size
        at = span.offset + span.size
        if following - at <= MAX_PADDING_BYTES:
            at = following
        yield Region(span.offset, at - span.offset, Kind.TENSOR, span.name)
    if at < size:
        yield Region(at, size - at, rest)


def _spans(folder: Path, path: str) -> Iterator[tuple[str, list[TensorSpan]]]:
    """(path of a file, tensors in it) as the file at `path` tells."""
    suffix = _suffix(path)
    try:
        if suffix == ".gguf":
            yield path, gguf_header.tensor_spans(folder / path)
        elif suffix == ".safetensors":
            yield path, safetensors_header.tensor_spans(folder / path)
        elif suffix == ".onnx":
            for place, found in onnx_graph.tensor_spans(folder / path).items():
                if place:
                    yield str(PurePosixPath(path).parent / place), found
                else:
                    yield path, [span for span in found if span.size >= MIN_INSIDE_BYTES]
    except FileUnsafe as error:
        _log.warning("cut without looking into it", file=path, why=str(error))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


_DESCRIBED: Final = frozenset({".gguf", ".safetensors", ".onnx"})
