"""What is compiled: a checkpoint folder as transformers writes it, looked at without loading it.

`inspect` says what the folder holds, names it by the digest of the files that a build reads, and refuses what a
build must not touch: pickles, code that comes with a model, weights that are quantised already.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgewright_contract import bundle
from edgewright_contract.bundle import BundleFile
from edgewright_contract.model_files import ArtifactUnsafe, FileUnsafe, rules, safetensors_header
from edgewright_contract.model_files.safetensors_header import Header
from edgewright_controller.compile import calibration
from edgewright_controller.compile.calibration import Calibration
from edgewright_controller.compile.hashing import Hashes

MAX_JSON_BYTES: Final = 64 << 20
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

# Everything that a build may read, besides the weights.
BESIDE_WEIGHTS: Final = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)
INDEX: Final = "model.safetensors.index.json"


class SourceError(Exception):
    """This source cannot be compiled or shipped; the message names file and reason, and what would be right."""


@dataclass(frozen=True)
class ModelFacts:
    """What config.json and the headers say. `dtype` is the type of most weights: bf16, f16 or f32.
    `bytes` counts the weights' files, `context` and `inner`, the width inside a layer, are 0 when config.json does not
    say. `windowed_layers` look back over `window` tokens only."""

    architecture: str
    model_type: str
    parameters: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    dtype: str
    bytes: int
    inner: int = 0
    window: int = 0
    windowed_layers: int = 0


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: its name in the build, where it stands, bytes and sha256, and its time of change
    and inode, by which a change during a build is noticed."""

    path: str
    place: Path
    size: int
    sha256: str
    mtime_ns: int
    inode: int

    @property
    def unchanged(self) -> bool:
        """Whether the file is still the one that was hashed. Raises OSError."""
        stat = self.place.stat()
        return (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True)
class Source:
    """A checkpoint, or a prebuilt artifact (then without facts). `digest` is the bundle digest of its files.

    `origin` is where it was fetched or what it was made from, with the commit; empty for a folder of this machine.
    `requantised`: it was dequantised, so that every figure is relative to weights that were rounded before.
    `calibration` is the text that recipes measure it with, which is no part of it.
    """

    folder: Path
    digest: str
    files: tuple[SourceFile, ...]
    facts: ModelFacts | None
    origin: str = ""
    requantised: bool = False
    calibration: Calibration = field(default_factory=calibration.shipped)

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def inspect(folder: Path, hashes: Hashes | None = None) -> Source:
    """Look at a checkpoint folder. Raises SourceError."""
    try:
        config = read_json(_folder(folder) / "config.json")
        _refuse_code(folder, config)
        weights = _weights(folder)
        facts = _facts(folder, config, weights)
        names = [name for name in (*BESIDE_WEIGHTS, INDEX) if (folder / name).is_file()]
        if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(names):
            raise SourceError(f"{folder}: no tokenizer (tokenizer.json or tokenizer.model) beside the weights")
        places = {name: folder / name for name in (*names, *weights)}
        _refuse_unsafe(folder, places)
        return _source(folder, places, facts, hashes or Hashes())
    except OSError as error:
        raise SourceError(f"{error.filename or folder}: {error.strerror}") from error


def refuse_unusable(folder: Path) -> None:
    """Refuse what a checkpoint's small files show, before its weights are there. Raises SourceError."""
    try:
        _refuse_code(folder, read_json(_folder(folder) / "config.json"))
    except OSError as error:
        raise SourceError(f"{error.filename or folder}: {error.strerror}") from error


def inspect_files(folder: Path, names: Iterable[str], hashes: Hashes | None = None) -> Source:
    """Files of a folder that are no model by themselves, such as an adapter's. Raises SourceError."""
    try:
        places = {name: folder / name for name in names}
        _refuse_unsafe(folder, places)
        return _source(folder, places, None, hashes or Hashes())
    except OSError as error:
        raise SourceError(f"{error.filename or folder}: {error.strerror}") from error


def describe(folder: Path) -> ModelFacts:
    """What a checkpoint's config.json and headers say, without reading its weights. Raises SourceError."""
    try:
        config = read_json(_folder(folder) / "config.json")
        return _facts(folder, config, _weights(folder))
    except OSError as error:
        raise SourceError(f"{error.filename or folder}: {error.strerror}") from error


def inspect_prebuilt(path: Path, runtime: str, hashes: Hashes | None = None) -> Source:
    """Look at an artifact that was made elsewhere: a folder, or for gguf also one file. Raises SourceError.

    What each device would refuse is refused here. Whether it runs, each device finds out before it serves it.
    """
    try:
        if runtime == "gguf" and path.is_file():
            places = {"model.gguf": path}
        else:
            found = [entry for entry in _folder(path).rglob("*") if entry.is_symlink() or not entry.is_dir()]
            places = {entry.relative_to(path).as_posix(): entry for entry in found}
        for name, place in places.items():
            if name.lower().endswith((*PICKLES, ".py", ".so", ".dll", ".dylib")):
                raise SourceError(f"{place}: pickles and code are never shipped; take it out of the artifact")
            if place.is_symlink() or not place.is_file():
                what = "a link" if place.is_symlink() else "no file"
                raise SourceError(f"{place}: {what}; an artifact consists of plain files")
        _check_runtime(path, runtime, places)
        _refuse_unsafe(path, places, runtime)
        return _source(path, places, None, hashes or Hashes())
    except OSError as error:
        raise SourceError(f"{error.filename or path}: {error.strerror}") from error


def _folder(path: Path) -> Path:
    if not path.exists():
        raise SourceError(f"{path}: there is no such folder")
    if not path.is_dir():
        raise SourceError(
            f'{path}: not a folder; name a checkpoint\'s folder, or ship the file with quantization = "prebuilt"'
        )
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model, of a bounded size. Raises SourceError, OSError."""
    if not path.is_file():
        raise SourceError(f"{path.parent}: not a model: it has no {path.name}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise SourceError(f"{path}: more than {MAX_JSON_BYTES:,} bytes")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SourceError(f"{path}: not a JSON object")
    return document


def _refuse_code(folder: Path, config: Mapping[str, Any]) -> None:
    documents = {"config.json": config}
    if (folder / "tokenizer_config.json").is_file():
        documents["tokenizer_config.json"] = read_json(folder / "tokenizer_config.json")
    for name, document in documents.items():
        for key in ("auto_map", "model_file"):
            if document.get(key):
                raise SourceError(f"{folder / name}: {key}: the model needs its own code, which is never run")
    if config.get("quantization_config") or config.get("quantization"):
        raise SourceError(f"{folder}: quantised already; compile from the unquantised checkpoint")


def _refuse_unsafe(path: Path, places: Mapping[str, Path], runtime: str = "") -> None:
    """By the devices' own rules; those about names are for artifacts, which have a `runtime`."""
    try:
        if runtime:
            rules.check_names(places, runtime)
        rules.check_contents(places)
    except ArtifactUnsafe as error:
        raise SourceError(f"{path}: {error}") from error


def _weights(folder: Path) -> dict[str, Header]:
    """The safetensors files that make up the model, with their checked headers."""
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(PICKLES))
        if pickles:
            raise SourceError(
                f"{folder / pickles[0]}: a pickle can run code when it is read, so it is refused;"
                " convert the checkpoint to safetensors"
            )
        raise SourceError(f"{folder}: not a model: no .safetensors file in it")
    wanted: Mapping[str, Any] = {}
    if (folder / INDEX).is_file():
        wanted = read_json(folder / INDEX).get("weight_map", {})
        if not isinstance(wanted, dict) or not all(isinstance(name, str) for name in wanted.values()):
            raise SourceError(f"{folder / INDEX}: weight_map does not map tensors to files")
        # Other safetensors files in the folder, such as the same weights in another arrangement, are not the model.
        missing = sorted(set(wanted.values()) - set(found))
        if missing:
            raise SourceError(f"{folder / missing[0]}: named in {INDEX}, but there is no such file")
        found = sorted(set(wanted.values()))
    headers = {}
    for name in found:
        try:
            headers[name] = safetensors_header.read(folder / name)
        except FileUnsafe as error:
            raise SourceError(f"{folder / name}: {error}; fetch it again") from error
    for tensor, name in wanted.items():
        if tensor not in headers[name].names:
            raise SourceError(f"{folder / name}: tensor {tensor!r} is missing, which {INDEX} places there")
    return headers


def _facts(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Header]) -> ModelFacts:
    text = config.get("text_config", config)
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise SourceError(f"{folder / 'config.json'}: architectures: missing, so no toolchain knows what this is")

    def number(key: str, default: int | None = None) -> int:
        value = text.get(key, default) if isinstance(text, Mapping) else None
        value = default if value is None else value
        if type(value) is not int or value < 0:
            raise SourceError(
                f"{folder / 'config.json'}: {key}: {value!r} is not a whole number; not a language model?"
            )
        return value

    elements = sum((Counter(header.elements) for header in weights.values()), Counter[str]())
    kind = max(elements, key=lambda name: elements[name])
    dtype = {"BF16": "bf16", "F16": "f16", "F32": "f32"}.get(kind)
    if dtype is None:
        raise SourceError(f"{folder}: its weights are {kind}; compile from a bf16, f16 or f32 checkpoint")
    heads = number("num_attention_heads")
    hidden = number("hidden_size")
    return ModelFacts(
        architecture=architectures[0],
        model_type=str(config.get("model_type", "")),
        parameters=elements.total(),
        hidden=hidden,
        layers=number("num_hidden_layers"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // max(heads, 1)),
        vocab=number("vocab_size"),
        context=number("max_position_embeddings", 0),
        dtype=dtype,
        bytes=sum((folder / name).stat().st_size for name in weights),
        inner=number("intermediate_size", 0),
        **_window(text, number("num_hidden_layers")),
    )


# Families that look back over a window in every so many layers but one, where config.json does not list the layers.
_WHOLE_EACH: Final = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6}


def _window(text: Mapping[str, Any], layers: int) -> dict[str, int]:
    """The sliding window of a model's attention, and in how many layers it holds."""
    window = text.get("sliding_window")
    if type(window) is not int or window < 1 or text.get("use_sliding_window") is False:
        return {"window": 0, "windowed_layers": 0}
    kinds = text.get("layer_types")
    if isinstance(kinds, list):
        windowed = sum(kind == "sliding_attention" for kind in kinds)
    else:
        each = text.get("sliding_window_pattern") or _WHOLE_EACH.get(str(text.get("model_type")))
        windowed = layers - layers // each if type(each) is int and each > 0 else layers
    return {"window": window, "windowed_layers": min(windowed, layers)}


def _check_runtime(path: Path, runtime: str, places: Mapping[str, Path]) -> None:
    names = set(places)
    if runtime == "gguf":
        if not any(name.endswith(".gguf") for name in names):
            raise SourceError(f"{path}: no .gguf file in it")
    elif runtime == "mlx":
        if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
            raise SourceError(f"{path}: not an MLX model: it needs config.json and .safetensors files")
    elif "genai_config.json" not in names or not any(name.endswith(".onnx") for name in names):
        raise SourceError(f"{path}: not a model for onnxruntime-genai: it needs genai_config.json and a .onnx file")


def _source(folder: Path, places: Mapping[str, Path], facts: ModelFacts | None, hashes: Hashes) -> Source:
    files = tuple(_file(name, place, hashes) for name, place in sorted(places.items()))
    hashes.save()
    return Source(folder, _digest(folder, files), files, facts)


def _file(name: str, place: Path, hashes: Hashes) -> SourceFile:
    stat = place.stat()
    return SourceFile(name, place, stat.st_size, hashes.of(place), stat.st_mtime_ns, stat.st_ino)


def _digest(folder: Path, files: Iterable[SourceFile]) -> str:
    try:
        return bundle.make([BundleFile(file.path, file.size, file.sha256) for file in files]).digest
    except bundle.BundleError as error:
        raise SourceError(f"{folder}: {error}") from error
