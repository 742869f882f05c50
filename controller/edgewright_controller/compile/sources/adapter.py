"""Whether a LoRA adapter fits a checkpoint, by its configuration and the headers of both. Reads no weights.

The name of the base in an adapter's configuration is a hint that people rename away; what counts is that each of its
tensors has a tensor of the base that it changes, of the right shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgewright_contract.model_files import FileUnsafe, safetensors_header
from edgewright_controller.compile.hashing import Hashes
from edgewright_controller.compile.source import PICKLES, Source, SourceError, inspect_files, read_json
from edgewright_controller.compile.sources.listing import ADAPTER_FILES

Shape = tuple[int, ...]

_CONFIG, _WEIGHTS = ADAPTER_FILES
_PREFIX: Final = "base_model.model."
_LORA: Final = re.compile(r"(.+)\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)(?:\.(weight|bias))?")
_WHOLE: Final = re.compile(r"(.+?)(?:\.modules_to_save|\.original_module)?\.(weight|bias)")
_EMBEDDINGS: Final = ("lm_head", "embed_tokens")


def inspect(folder: Path, hashes: Hashes | None = None) -> Source:
    """Look at an adapter's folder: a source without facts. Raises SourceError."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: there is no such folder")
    if not (folder / _CONFIG).is_file():
        raise SourceError(f"{folder}: not an adapter of PEFT: it has no {_CONFIG}")
    if not (folder / _WEIGHTS).is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(PICKLES))
        if pickles:
            raise SourceError(
                f"{folder / pickles[0]}: a pickle can run code when it is read, so it is refused; save the adapter "
                "as safetensors"
            )
        raise SourceError(f"{folder}: it has no {_WEIGHTS}")
    config = read_json(folder / _CONFIG)
    if config.get("peft_type") != "LORA":
        raise SourceError(f"{folder / _CONFIG}: peft_type: {config.get('peft_type')!r}; only LORA is merged")
    if config.get("auto_mapping"):
        raise SourceError(f"{folder / _CONFIG}: auto_mapping: the adapter needs its own code, which is never run")
    return inspect_files(folder, ADAPTER_FILES, hashes)


def refuse_misfit(adapter: Source, base: Source) -> None:
    """Raises SourceError that names adapter and tensor when the adapter was made for another base."""
    changed, there = _shapes(adapter), _shapes(base)
    tied = bool(read_json(base.folder / "config.json").get("tie_word_embeddings")) or "lm_head.weight" not in there
    if misfit := _misfit(read_json(adapter.folder / _CONFIG), changed, there, tied=tied):
        raise SourceError(f"{adapter.folder / _WEIGHTS}: {misfit}")


def refuse_other_tensors(merged: Source, base: Source) -> None:
    """Raises SourceError when merging changed more than the weights' values."""
    one, other = _shapes(merged), _shapes(base)
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            raise SourceError(f"merging changed which tensors there are: {name!r}; merge it yourself, and name that")


def _shapes(source: Source) -> dict[str, Shape]:
    there: dict[str, Shape] = {}
    for file in source.files:
        try:
            if file.path.endswith(".safetensors"):
                there |= safetensors_header.shapes(file.place)
        except FileUnsafe as error:
            raise SourceError(f"{file.place}: {error}") from error
        except OSError as error:
            raise SourceError(f"{error.filename}: {error.strerror}") from error
    return there


def _misfit(config: Mapping[str, Any], changed: Mapping[str, Shape], there: Mapping[str, Shape], *, tied: bool) -> str:
    """Why the adapter does not fit; empty when it does."""
    if not changed:
        return "no tensor in it"
    parts: dict[str, dict[str, tuple[str, Shape]]] = {}
    for name, shape in sorted(changed.items()):
        found = _LORA.fullmatch(name) or _WHOLE.fullmatch(name)
        if found is None or not name.startswith(_PREFIX):
            return f"tensor {name!r} is of no kind that is merged"
        module = found[1].removeprefix(_PREFIX)
        part = found[2] if _LORA.fullmatch(name) else "whole"
        bias = (found[3] if _LORA.fullmatch(name) else found[2]) == "bias"
        if tied and module.rpartition(".")[2] in _EMBEDDINGS:
            return f"tensor {name!r} changes {module}, which the base shares between input and output; untie it first"
        if part == "whole":
            base = there.get(f"{module}.{'bias' if bias else 'weight'}")
            if base is None:
                return f"tensor {name!r} has none in the base to replace; was it made for another?"
            if base != shape:
                return f"tensor {name!r} is {_written(shape)}, the base's {_written(base)}; it was made for another"
        elif not bias:
            parts.setdefault(module, {})[part] = (name, shape)
    # Targets that the base lacks are none of the adapter's tensors, else one of them would have been without its own.
    return next((why for module, pair in parts.items() if (why := _pair(module, pair, there, config))), "")


def _pair(
    module: str, pair: Mapping[str, tuple[str, Shape]], there: Mapping[str, Shape], config: Mapping[str, Any]
) -> str:
    first, second = ("embedding_A", "embedding_B") if "embedding_A" in pair or "embedding_B" in pair else ("A", "B")
    name = next(iter(pair.values()))[0]
    base = there.get(f"{module}.weight")
    if base is None:
        return f"tensor {name!r} has no {module}.weight in the base to change; was it made for another?"
    if first not in pair or second not in pair:
        return f"tensor {name!r} has not its other half; fetch the adapter again"
    (name_a, a), (name_b, b) = pair[first], pair[second]
    if len(a) != 2 or len(b) != 2 or len(base) != 2 or a[0] != b[1]:
        return f"tensors {name_a!r} {_written(a)} and {name_b!r} {_written(b)} do not go together"
    made = (a[1], b[0]) if first == "embedding_A" or config.get("fan_in_fan_out") else (b[0], a[1])
    if made != base:
        return (
            f"tensors {name_a!r} and {name_b!r} change {_written(made)} weights, {module}.weight of the base has "
            f"{_written(base)}; it was made for another"
        )
    return ""


def _written(shape: Shape) -> str:
    return "×".join(str(length) for length in shape)
