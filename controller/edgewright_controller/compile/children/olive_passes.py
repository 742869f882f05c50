"""Passes of Olive, by type and options → which of them this Olive does not have, or not with these options.

Nothing is built: each pass is asked for the options that it has, and its own check is run on those that were given.

Request: {"passes": [[name, type, options], …], "device": "cpu", "provider": "CPUExecutionProvider"}
Result: {"faults": [[name, option or "", what is wrong], …]}
"""

from __future__ import annotations

import difflib
import sys
from typing import Any

from stage import Say, run


def check(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading Olive")
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.package_config import OlivePackageConfig

    package = OlivePackageConfig.load_default_config()
    spec = AcceleratorSpec(request["device"], request["provider"])
    faults = []
    for name, kind, options in request["passes"]:
        faults += [[name, *fault] for fault in _faults(package, spec, kind, options)]
    return {"faults": faults}


def _faults(package: Any, spec: Any, kind: str, options: dict[str, Any]) -> list[list[str]]:
    # The package's own table is in small letters; a type has its own spelling.
    names = {one.module_path.rpartition(".")[2] for one in package.passes.values()}
    if kind not in names:
        return [["", f"Olive has no pass {kind!r}{_near(kind, names)}"]]
    if not package.is_onnx_module(kind):
        return [["", f"{kind} works on a checkpoint; what a recipe adds works on the graph that is made from it"]]
    try:
        found = package.import_pass_module(kind)
    except ImportError as error:
        return [["", f"{kind} cannot be loaded under this interpreter ({error}); install what it needs there"]]
    known = found._default_config(spec)
    unknown = [name for name in options if name not in known]
    if unknown:
        return [[name, f"{kind} has no option {name!r}{_near(name, known)}"] for name in unknown]
    missing = [name for name, one in known.items() if one.required and name not in options]
    if missing:
        return [[name, f"{kind} needs it"] for name in missing]
    try:
        config = found.generate_config(spec, options, {}, disable_search=True)
        if not found.validate_config(config, spec):
            return [["", f"{kind} refuses these options for {spec.execution_provider}"]]
    except Exception as error:  # whatever a pass's own check raises is what is wrong with the options
        return [["", f"{kind} refuses these options: {_line(error)}"]]
    return []


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _line(error: Exception) -> str:
    if hasattr(error, "errors"):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    sys.exit(run(check))
