"""Which files may reach an engine at all. Checked by name before the download, by content before the first load.

An artifact is data. Whatever could run code when it is loaded is refused, although it was signed: pickles,
Python files, native libraries, references to code elsewhere.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from edgewright_agent import gguf_header
from edgewright_contract.bundle import Bundle

_ANYWHERE: Final = frozenset({".json", ".jinja", ".txt", ".md", ".model", ".tiktoken"})
_BY_RUNTIME: Final = {
    "gguf": _ANYWHERE | {".gguf"},
    "mlx": _ANYWHERE | {".safetensors"},
    # .data holds weights beside a graph; .bin and .xml are what vendors' compilers write for NPUs.
    "onnx": _ANYWHERE | {".onnx", ".data", ".bin", ".xml", ".onnx_data"},
}
_MAIN: Final = {"gguf": ".gguf", "mlx": ".safetensors", "onnx": ".onnx"}
_NAMES_WITHOUT_SUFFIX: Final = frozenset({"LICENSE", "NOTICE", "README"})
_MAX_SETTINGS_BYTES: Final = 16 << 20
_MAX_SAFETENSORS_HEADER: Final = 100 << 20
# Keys by which loaders find code: transformers, mlx-lm, onnxruntime-genai.
_CODE_KEYS: Final = frozenset({"auto_map", "model_file", "custom_ops_library", "custom_pipelines"})
_BINARY_WITH_CODE: Final = (
    (b"PK\x03\x04", "a zip archive, as pickled checkpoints are"),
    (b"\x7fELF", "a native library"),
    (b"MZ", "a native library"),
    (b"\xcf\xfa\xed\xfe", "a native library"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
)


class ArtifactUnsafe(Exception):
    """The artifact has a file that must never reach an engine. The text names it and says why."""


def check_names(bundle: Bundle, runtime: str) -> None:
    """Raise ArtifactUnsafe unless every file's kind is one that `runtime` reads, and there is a model among them."""
    allowed = _BY_RUNTIME.get(runtime)
    if allowed is None:
        raise ArtifactUnsafe(f"runtime {runtime!r} is not known to this agent; update it")
    for file in bundle.files:
        path = PurePosixPath(file.path)
        if path.suffix.lower() not in allowed and path.name not in _NAMES_WITHOUT_SUFFIX:
            raise ArtifactUnsafe(f"{file.path}: files of this kind are not loaded on a device ({runtime})")
    if not any(file.path.lower().endswith(_MAIN[runtime]) for file in bundle.files):
        raise ArtifactUnsafe(f"no {_MAIN[runtime]} file in an artifact for {runtime}")


def check_contents(bundle: Bundle, folder: Path) -> None:
    """Raise ArtifactUnsafe when a file below `folder` holds code, points to code, or has a header out of bounds.

    Reads heads and settings only. Raises OSError.
    """
    for file in bundle.files:
        path = folder / file.path
        reason = _fault(path, path.suffix.lower())
        if reason:
            raise ArtifactUnsafe(f"{file.path}: {reason}")


def _fault(path: Path, suffix: str) -> str:
    with open(path, "rb") as file:
        head = file.read(8)
    for magic, what in _BINARY_WITH_CODE:
        if head.startswith(magic):
            return what
    if suffix == ".gguf":
        try:
            gguf_header.check(path)
        except gguf_header.HeaderError as error:
            return str(error)
    if suffix == ".safetensors":
        return _safetensors_fault(path, head)
    if suffix == ".json" and path.name != "tokenizer.json":
        return _settings_fault(path)
    return ""


def _safetensors_fault(path: Path, head: bytes) -> str:
    size = path.stat().st_size
    if len(head) < 8:
        return "too short for a safetensors file"
    length = struct.unpack("<Q", head)[0]
    if length > min(size - 8, _MAX_SAFETENSORS_HEADER):
        return f"its header of {length} bytes does not fit"
    with open(path, "rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
            if any(not 0 <= first <= last <= size - 8 - length for first, last in spans):
                return "a tensor lies outside the file"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"its header cannot be read: {error!r}"
    return ""


def _settings_fault(path: Path) -> str:
    """Vocabularies are JSON too, and large; a file of settings is not."""
    if path.stat().st_size > _MAX_SETTINGS_BYTES:
        return "" if path.name in ("vocab.json", "added_tokens.json") else "larger than any file of settings"
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if path.name in ("vocab.json", "added_tokens.json"):
        return ""
    for key in _keys(document):
        if key in _CODE_KEYS:
            return f"{key}: refers to code, which a device does not run"
    return ""


def _keys(document: Any) -> Iterator[str]:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
