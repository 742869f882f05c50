"""Further passes of Olive that a profile's recipe names, in the form in which they stand in a recipe. Pure.

What is refused here needs no Olive: places outside of the build, code, and whatever is looked up elsewhere; passes that
contradict each other or the precision. Whether Olive has such a pass, and such an option of it, is asked under its own
interpreter (children/olive_passes.py), by `plan` already (compile/pass_faults.py).

Some passes work on the checkpoint, before the graph is made of it; the rest on the finished graph. Those that read data
are given the model's calibration text, so that none is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from edgewright_controller.compile.recipe_option import Option, RecipeError

# What rounds the checkpoint's weights into blocks of levels, which the graph then has.
QUANTISING: Final = frozenset({"AutoAWQQuantizer", "Gptq", "GptqModel", "GptqQuantizer", "KQuant", "Rtn"})
# What works on the checkpoint and leaves weights that can be compared with the source's one by one. What rotates,
# prunes or trains them does not, and is refused by children/olive_passes.py.
BEFORE_GRAPH: Final = QUANTISING | {"AutoClip", "SelectiveMixedPrecision"}
# What reads data, by an option `data_config`.
READING: Final = frozenset(
    {"AimetQuantization", "AutoAWQQuantizer", "AutoClip", "Gptq", "GptqModel", "GptqQuantizer", "IncQuantization"}
    | {"IncStaticQuantization", "OnnxQuantization", "OnnxStaticQuantization"}
)
# Of the levels that a quantising pass may make; onnxruntime-genai's builder is asked for a graph of such.
BITS: Final[Mapping[str, int]] = MappingProxyType({"int4": 4})

MAX_PASSES: Final = 16
MAX_DEPTH: Final = 8
MAX_VALUES: Final = 500
MAX_TEXT: Final = 500

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
# Options by which Olive's passes take files, code and credentials from somewhere.
_OUTSIDE: Final = re.compile(
    r"(.*_)?(path|paths|dir|dirs|directory|file|files|filename|script|module|url|uri|env|token|func|function|class)"
    r"|trust_remote_code|hf_remote|adapter|adapters|dataset|data_config|data_name|model_name|model_id|repo_id|revision|host|port"
)
_PLACE: Final = re.compile(r".*://.*|(.*[/\\])?\.\.([/\\].*)?|~.*|[A-Za-z]:[/\\].*|\\\\.*")
# The name of a file beside the graph, which stays a plain one.
_BESIDE: Final = "external_data_name"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def spelling(key: str, value: Any) -> Option:
    """The passes in the order in which they stand, each as [name, type, options]. Raises RecipeError.

    A pass is named after its type, or says it as `type`, so that the same one may run twice.
    """
    if not isinstance(value, Mapping):
        raise RecipeError(key, "must be a table of passes, like { OnnxPeepholeOptimizer = {} }")
    if len(value) > MAX_PASSES:
        raise RecipeError(key, f"has {len(value)} passes; at most {MAX_PASSES}")
    return [_pass(f"{key}.{name}", name, table) for name, table in value.items()]


def reads_text(passes: Sequence[Sequence[Any]]) -> bool:
    """Whether any of these, as `spelling` gives them, reads the calibration text."""
    return any(kind in READING for _, kind, _ in passes)


def on_checkpoint(passes: Sequence[Sequence[Any]]) -> list[Any]:
    """Those that run before the graph is made."""
    return [list(one) for one in passes if one[1] in BEFORE_GRAPH]


def on_graph(passes: Sequence[Sequence[Any]]) -> list[Any]:
    """Those that run over the finished graph."""
    return [list(one) for one in passes if one[1] not in BEFORE_GRAPH]


def check_together(key: str, quantization: str, passes: Sequence[Sequence[Any]]) -> None:
    """Raise RecipeError, with a key below `key`, where passes contradict each other or the precision."""
    quantiser = graph = ""
    for name, kind, options in passes:
        if kind not in BEFORE_GRAPH:
            graph = name
            continue
        if graph:
            raise RecipeError(f"{key}.{name}", f"works on the checkpoint, so it cannot follow {graph}; put it before")
        if quantiser:
            raise RecipeError(f"{key}.{name}", f"cannot follow {quantiser}, after which there is nothing left to round")
        if kind not in QUANTISING:
            continue
        quantiser, bits = name, options.get("bits")
        if quantization not in BITS:
            known = ", ".join(BITS)
            raise RecipeError(f"{key}.{name}", f"rounds the weights, which contradicts {quantization}; use {known}")
        if bits is not None and bits != BITS[quantization]:
            raise RecipeError(f"{key}.{name}.bits", f"{bits!r} contradicts {quantization}; take it away")


def _pass(key: str, name: str, table: Any) -> list[Any]:
    if not _NAME.fullmatch(name):
        raise RecipeError(key, "a pass is named by a letter, then letters, digits and underscores, 64 at most")
    if not isinstance(table, Mapping):
        raise RecipeError(key, f"must be a table of the pass's options; {{}} for none, not {table!r}")
    options = dict(table)
    kind = options.pop("type", name)
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        raise RecipeError(f"{key}.type", f"{kind!r} is not the name of a pass of Olive")
    if sum(1 for _ in _values(key, options, 0)) > MAX_VALUES:
        raise RecipeError(key, f"has more than {MAX_VALUES} values")
    for where, option, one in _values(key, options, 0):
        _check_value(where, option, one)
    return [name, kind, options]


def _values(key: str, value: Any, depth: int, option: str = "") -> Iterator[tuple[str, str, Any]]:
    """(key, the option's own name, value) of all that stands in a table, the tables and lists first."""
    if depth > MAX_DEPTH:
        raise RecipeError(key, f"tables stand in tables more than {MAX_DEPTH} deep")
    yield key, option, value
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _values(f"{key}.{name}", one, depth + 1, name)
    elif isinstance(value, list):
        for one in value:
            yield from _values(key, one, depth + 1, option)


def _check_value(key: str, option: str, value: Any) -> None:
    if option == _BESIDE:
        if not isinstance(value, str) or not _PLAIN.fullmatch(value):
            raise RecipeError(key, f"{value!r} is not the plain name of a file")
        return
    if option == "data_config":
        raise RecipeError(key, "is the model's calibration text, and nothing else; take it away")
    if _OUTSIDE.fullmatch(option.lower()):
        raise RecipeError(key, "a build takes no files, code or data from elsewhere; take it away")
    if isinstance(value, str):
        if len(value) > MAX_TEXT or not value.isprintable():
            raise RecipeError(key, f"is no text of up to {MAX_TEXT} printable characters")
        if _PLACE.fullmatch(value):
            raise RecipeError(key, f"{value!r} is a place outside of the build; take it away")
    elif not isinstance(value, bool | int | float | Mapping | list):
        raise RecipeError(key, f"{value!r} is nothing that Olive's options can be")
