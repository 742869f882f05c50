"""From pydantic's findings to sentences that name the key and say what would be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from edgewright_controller.manifest.assignment import Fault, Path
from edgewright_controller.manifest.errors import nearest, quoted, suggestion
from edgewright_controller.manifest.profiles import ID_KEY_PATTERN, GgufProfile, MlxProfile, OnnxProfile
from edgewright_controller.manifest.schema import Manifest

_WANTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUND: Final = {
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "greater_than": ("gt", "must be above {}"),
    "string_too_long": ("max_length", "is longer than {} characters"),
    "string_too_short": ("min_length", "is empty"),
    "too_short": ("min_length", "is empty; name at least {}"),
    "too_long": ("max_length", "has more than {} entries"),
}
_PROFILES: Final = {"gguf": GgufProfile, "mlx": MlxProfile, "onnx": OnnxProfile}
_ID_RULE: Final = "use a to z, 0 to 9 and -, starting with a letter or digit, at most 63 characters"


def faults_of(errors: Sequence[ErrorDetails]) -> list[Fault]:
    """One fault for each finding, without those that only follow from another."""
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    meant = {(*_path(e)[:-1], nearest(str(_path(e)[-1]), _known_keys(_table(e)))) for e in unknown}
    # A misspelt key is also a missing one, and a list of which no entry is right is also too short; once is enough.
    kept = [
        e
        for e in errors
        if not (e["type"] == "missing" and _path(e) in meant) and not (e["type"] == "too_short" and e["input"])
    ]
    return [Fault(_shown(error), _message(error)) for error in kept]


def as_written(path: Path, document: Mapping[str, Any]) -> Path:
    """The path without parts that the document leaves out, where something short stands for a table or a list."""
    shown: list[str | int] = []
    here: Any = document
    for part, after in zip(path, (*path[1:], None), strict=True):
        left_out = not isinstance(here, list) if isinstance(part, int) else not isinstance(here, dict)
        left_out |= isinstance(here, dict) and part not in here and after in here
        if here is not _MISSING and left_out:
            continue
        shown.append(part)
        here = _at(here, part)
    return tuple(shown)


_MISSING: Final = object()


def _at(here: Any, part: str | int) -> Any:
    try:
        return here[part]
    except (TypeError, LookupError):
        return _MISSING


def _message(error: ErrorDetails) -> str:
    kind, path, value = error["type"], _path(error), error["input"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{suggestion(str(path[-1]), _known_keys(_table(error)))}"
    if kind == "union_tag_not_found":
        return f"missing; one of {', '.join(_PROFILES)}"
    if kind == "union_tag_invalid":
        return f"there is no runtime {quoted(value['runtime'])}{suggestion(str(value['runtime']), _PROFILES)}"
    choices = _choices(error["loc"])
    if kind == "missing":
        return "missing" + (f"; one of {', '.join(choices)}" if choices else "")
    if kind == "literal_error":
        if not isinstance(value, str):
            return f"must be one of {', '.join(choices)}, not {_named(value)}"
        what = "" if isinstance(path[-1], int) else f"{path[-1]} "
        return f"there is no {what}{quoted(value)} here{suggestion(value, choices)}"
    if kind == "string_pattern_mismatch":
        pattern = context.get("pattern")
        rule = _ID_RULE if pattern == ID_KEY_PATTERN else f"it must match {pattern}"
        return f"{quoted(value)} is not allowed as a name; {rule}"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}, not {_named(value)}"
    if kind in _BOUND:
        bound = context.get(_BOUND[kind][0])
        return _BOUND[kind][1].format(f"{bound:,}" if isinstance(bound, int) else bound)
    return error["msg"]


def _named(value: object) -> str:
    kinds = {
        bool: "true or false",
        str: "text",
        int: "the number",
        float: "the number",
        dict: "a table",
        list: "a list",
    }
    name = kinds.get(type(value), "")
    if isinstance(value, dict | list):
        return name
    if isinstance(value, bool):
        return str(value).lower()
    return f"{name} {quoted(value)}" if isinstance(value, str) else f"{name} {value}".strip()


def _path(error: ErrorDetails) -> Path:
    """Where the error stands, as the TOML has it: without pydantic's marks for keys and for the runtime chosen."""
    raw = [part for part in error["loc"] if part != "[key]"]
    if len(raw) > 2 and raw[0] == "profiles" and raw[2] in _PROFILES:
        del raw[2]
    return tuple(raw)


def _shown(error: ErrorDetails) -> Path:
    return (*_path(error), "runtime") if error["type"].startswith("union_tag") else _path(error)


def _table(error: ErrorDetails) -> Sequence[str | int]:
    return error["loc"][:-1]


def _types_at(location: Sequence[str | int]) -> list[Any]:
    """Every type that the schema allows at one of pydantic's locations."""
    kinds: list[Any] = [Manifest]
    for part in location:
        chosen = _PROFILES.get(str(part))
        # In the first case `part` is not a key, but pydantic's mark for the class that `runtime` chose.
        kinds = [chosen] if chosen in kinds else [inner for kind in kinds for inner in _below(kind, part)]
    return kinds


def _below(kind: Any, part: str | int) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        by_key = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        return _plain(by_key[str(part)]) if part in by_key else []
    if get_origin(kind) in (dict, tuple):
        return _plain(get_args(kind)[1 if get_origin(kind) is dict else 0])
    return []


def _plain(kind: Any) -> list[Any]:
    """A type without its annotations; a union as its members."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [plain for member in get_args(kind) if member is not NoneType for plain in _plain(member)]
    return [kind]


def _known_keys(location: Sequence[str | int]) -> list[str]:
    tables = [kind for kind in _types_at(location) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sorted({field.alias or name for table in tables for name, field in table.model_fields.items()})


def _choices(location: Sequence[str | int]) -> list[str]:
    literals = [kind for kind in _types_at(location) if get_origin(kind) is Literal]
    return list(dict.fromkeys(str(choice) for literal in literals for choice in get_args(literal)))
