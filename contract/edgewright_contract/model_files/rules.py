"""Which files may reach an engine at all. Checked by name before the download, by content before the first load.

An artifact is data. Whatever could run code when it is loaded is refused, although it was signed: pickles,
Python files, native libraries, references to code elsewhere, and headers that lead a parser in C++ astray.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from edgewright_contract import bundle
from edgewright_contract.model_files import (
    ArtifactUnsafe,
    FileUnsafe,
    chat_template,
    disguise,
    gguf_header,
    onnx_graph,
    safetensors_header,
    settings,
    texts,
)

_ANYWHERE: Final = frozenset({".json", ".jinja", ".txt", ".md", ".model", ".tiktoken"})
_BY_RUNTIME: Final = {
    "gguf": _ANYWHERE | {".gguf"},
    "mlx": _ANYWHERE | {".safetensors"},
    # .data holds weights beside a graph; .bin and .xml are what vendors' compilers write for NPUs.
    "onnx": _ANYWHERE | {".onnx", ".data", ".bin", ".xml", ".onnx_data"},
}
_MAIN: Final = {"gguf": ".gguf", "mlx": ".safetensors", "onnx": ".onnx"}
_NAMES_WITHOUT_SUFFIX: Final = frozenset({"LICENSE", "NOTICE", "README"})
# llama.cpp's names of the parts of one model; it loads the first, which leads it to the others.
_GGUF_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<parts>\d{5})\.gguf")
# Names by which loaders look for pickles, beside weights of the same suffix that are raw.
_PICKLE_NAME = re.compile(
    r"(pytorch_model|adapter_model|training_args|optimizer|scheduler|consolidated)([-._][0-9a-z-]+)?\.bin",
    re.IGNORECASE,
)


def check_names(paths: Collection[str], runtime: str) -> None:
    """Raise ArtifactUnsafe unless every file's kind is one that `runtime` reads, and there is a model among them."""
    allowed = _BY_RUNTIME.get(runtime)
    if allowed is None:
        raise ArtifactUnsafe(f"runtime {runtime!r} is not known here; update Edgewright")
    for name in sorted(paths):
        path = PurePosixPath(name)
        if path.suffix.lower() not in allowed and path.name not in _NAMES_WITHOUT_SUFFIX:
            raise ArtifactUnsafe(f"{name}: files of this kind are not loaded on a device ({runtime})")
        if _PICKLE_NAME.fullmatch(path.name):
            raise ArtifactUnsafe(f"{name}: a loader would take a file of this name for a pickle, which can run code")
    if lost := _lost_part(paths):
        raise ArtifactUnsafe(f"{lost}: missing, a part of a model in several files")
    if not any(name.lower().endswith(_MAIN[runtime]) for name in paths):
        raise ArtifactUnsafe(f"no {_MAIN[runtime]} file in an artifact for {runtime}")


def _lost_part(paths: Collection[str]) -> str:
    """The first part of a split GGUF that is not there, empty when all are."""
    for name in sorted(paths):
        if part := _GGUF_PART.fullmatch(name):
            for number in range(1, int(part["parts"]) + 1):
                wanted = f"{part['stem']}-{number:05}-of-{part['parts']}.gguf"
                if wanted not in paths:
                    return wanted
    return ""


def check_contents(files: Mapping[str, Path]) -> None:
    """Raise ArtifactUnsafe when a file holds code, points to code or outside, or has a header out of bounds.

    `files`: path in the artifact → where it stands. Reads heads, graphs and settings only. Raises OSError.
    """
    for name in sorted(files):
        try:
            check_file(name, files)
        except FileUnsafe as error:
            raise ArtifactUnsafe(f"{name}: {error}") from error
    try:
        chat_template.of(files)
    except FileUnsafe as error:
        raise ArtifactUnsafe(str(error)) from error


def check_file(name: str, files: Mapping[str, Path]) -> None:
    """Raise FileUnsafe when the file `name` of `files` must not be loaded. Raises OSError."""
    path, suffix = files[name], PurePosixPath(name).suffix.lower()
    disguised = disguise.what(path)
    if disguised:
        raise FileUnsafe(disguised)
    if suffix == ".gguf":
        gguf_header.read(path)
    elif suffix == ".safetensors":
        safetensors_header.read(path)
    elif suffix == ".onnx":
        _check_graph(name, files)
    elif suffix == ".json":
        _check_settings(name, files)
    elif suffix == ".jinja":
        texts.check_template(path)
    elif suffix == ".xml":
        texts.check_xml(path)
    elif suffix == ".model":
        texts.check_vocabulary(path)
    elif suffix in (".txt", ".md", ".tiktoken", ""):
        texts.check(path)
    # .data, .onnx_data and .bin are raw numbers. onnxruntime reads them by position and as nothing else, so there is
    # no header to check; that they are no code in disguise was seen above.


def _check_settings(name: str, files: Mapping[str, Path]) -> None:
    base = PurePosixPath(name).name
    if base in settings.VOCABULARIES:
        texts.check_json(files[name])
        return
    document = settings.read(files[name])
    settings.check(document, lambda place: _fault_of_place(name, place, files), genai=base == settings.GENAI)


def _check_graph(name: str, files: Mapping[str, Path]) -> None:
    graph = onnx_graph.read(files[name])
    if graph.foreign:
        domains = ", ".join(repr(domain) for domain in sorted(graph.foreign)[:3])
        raise FileUnsafe(f"it needs operators of {domains}, which come in a library of code")
    for place, least in sorted(graph.external.items()):
        reason = _fault_of_place(name, place, files)
        if reason:
            raise FileUnsafe(f"its weights are said to be in {place!r}: {reason}")
        size = files[_joined(name, place)].stat().st_size
        if least > size:
            raise FileUnsafe(f"its weights are said to be in {place!r} up to byte {least:,}, which has {size:,}")
    for place in sorted(graph.contexts):
        reason = _fault_of_place(name, place, files)
        if reason:
            raise FileUnsafe(f"its compiled graph is said to be in {place!r}: {reason}")


def _fault_of_place(name: str, place: str, files: Mapping[str, Path]) -> str:
    """Why a file of the artifact must not refer to `place`, from its own folder on; empty when it may."""
    try:
        bundle.check_path(place)
    except bundle.BundleError:
        return "no plain path within the artifact"
    return "" if _joined(name, place) in files else "no file of the artifact"


def _joined(name: str, place: str) -> str:
    return (PurePosixPath(name).parent / place).as_posix()
