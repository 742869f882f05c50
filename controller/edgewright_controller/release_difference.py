"""What two releases differ in, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from edgewright_contract.release import Probe, Release

_SCALARS: Final = ("model", "profile", "runtime", "accelerator", "memory_bytes", "artifact", "engine")
_DIGESTS: Final = ("artifact", "engine")
MAX_QUOTED: Final = 60


def differences(
    old: Release, new: Release, old_recipe: Mapping[str, Any] | None, new_recipe: Mapping[str, Any] | None
) -> list[str]:
    """One line for each thing in which `new` is not as `old`. Recipes are their documents, None where not known."""
    lines = [
        f"{name}: {_value(getattr(old, name), name)} → {_value(getattr(new, name), name)}"
        for name in _SCALARS
        if getattr(old, name) != getattr(new, name)
    ]
    lines += _table("options", old.options, new.options)
    lines += _probes(old, new)
    if old_recipe is not None and new_recipe is not None:
        lines += _table("recipe", _flat(old_recipe), _flat(new_recipe))
    elif old.artifact != new.artifact:
        lines.append("recipe: not known of one of them, so what made the artifacts differ is not either")
    return lines


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's document with its options beside the rest."""
    return {name: value for name, value in recipe.items() if name != "options"} | dict(recipe.get("options", {}))


def _table(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        if key not in new:
            yield f"{name}.{key}: {_value(old[key], key)} → not set"
        elif key not in old:
            yield f"{name}.{key}: not set → {_value(new[key], key)}"
        elif (type(old[key]), old[key]) != (type(new[key]), new[key]):  # 1 is not true
            yield f"{name}.{key}: {_value(old[key], key)} → {_value(new[key], key)}"


def _probes(old: Release, new: Release) -> Iterator[str]:
    before, after = ({probe.name: probe for probe in release.probes} for release in (old, new))
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"probes.{name}: is not asked any more"
        elif name not in before:
            yield f"probes.{name}: is asked now: {_value(after[name].prompt)}"
        else:
            yield from _probe(before[name], after[name])
    if before.keys() == after.keys() and list(before) != list(after):
        yield f"probes: asked in another order: {', '.join(before)} → {', '.join(after)}"


def _probe(old: Probe, new: Probe) -> Iterator[str]:
    yield from _table(f"probes.{new.name}", asdict(old), asdict(new))


def _value(value: object, name: str = "") -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    if name in _DIGESTS or name == "chat_template":
        return text[:12] or "none"
    shown = text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…"
    printable = "".join(sign if sign.isprintable() else "?" for sign in shown)
    return printable or "none"
