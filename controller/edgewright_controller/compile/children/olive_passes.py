"""Passes of Olive, by type and options → which of them this Olive does not have, or not with these options.

Nothing is built: each pass is asked for the options that it has, and its own check is run on those that were given.

Request: {"passes": [[name, type, options], …], "before": types that may work on the checkpoint, "reading": types
that are given the calibration text, "device": "cpu", "provider": "CPUExecutionProvider"}
Result: {"faults": [[name, option or "", what is wrong], …]}
"""

from __future__ import annotations

import difflib
import importlib.metadata
import re
import sys
from typing import Any

from stage import Say, StageError, run


def check(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading Olive")
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.package_config import OlivePackageConfig

    package = OlivePackageConfig.load_default_config()
    spec = AcceleratorSpec(request["device"], request["provider"])
    faults = []
    for name, kind, options in request["passes"]:
        faults += [[name, *fault] for fault in _faults(package, spec, request, kind, options)]
    return {"faults": faults}


def refuse(request: dict[str, Any], say: Say) -> None:
    """Raise StageError for the first fault, by its key in the recipe."""
    for name, option, words in check(request, say)["faults"]:
        raise StageError(f"recipe.passes.{name}{'.' + option if option else ''}: {words}")


def described(request: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The passes as Olive's configuration has them: with what is `usual` where a pass knows of it and is not told
    otherwise, and with the calibration text where it reads one."""
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.package_config import OlivePackageConfig

    package, spec = OlivePackageConfig.load_default_config(), AcceleratorSpec(request["device"], request["provider"])
    passes = {}
    for name, kind, options in request["passes"]:
        known = package.import_pass_module(kind)._default_config(spec)
        text = {"data_config": "calibration"} if kind in request["reading"] else {}
        ours = {key: value for key, value in {**usual, **text}.items() if key in known}
        passes[name] = {"type": kind, **ours, **options}
    return passes


def _faults(package: Any, spec: Any, request: dict[str, Any], kind: str, options: dict[str, Any]) -> list[list[str]]:
    # The package's own table is in small letters; a type has its own spelling.
    names = {one.module_path.rpartition(".")[2] for one in package.passes.values()}
    if kind not in names:
        return [["", f"Olive has no pass {kind!r}{_near(kind, names)}"]]
    if not package.is_onnx_module(kind) and kind not in request["before"]:
        known = ", ".join(sorted(request["before"]))
        words = (
            f"{kind} gives no checkpoint whose weights could be compared with the source's one by one; of passes that"
        )
        return [["", f"{words} do not work on the graph there are {known}"]]
    if missing := _missing(package, kind):
        return [
            [
                "",
                f"{kind} needs {', '.join(missing)}, which {sys.executable} has not; there, pip install"
                f" {' '.join(missing)}",
            ]
        ]
    try:
        found = package.import_pass_module(kind)
    except ImportError as error:
        return [["", f"{kind} cannot be loaded under this interpreter ({error}); install what it needs there"]]
    known = found._default_config(spec)
    unknown = [name for name in options if name not in known]
    if unknown:
        return [[name, f"{kind} has no option {name!r}{_near(name, known)}"] for name in unknown]
    given = [*options, *(["data_config"] if kind in request["reading"] else [])]
    missing = [name for name, one in known.items() if one.required and name not in given]
    if missing:
        return [[name, f"{kind} needs it"] for name in missing]
    try:
        text = {"data_config": {"name": "calibration"}} if "data_config" in given and "data_config" in known else {}
        config = found.generate_config(spec, {**options, **text}, {}, disable_search=True)
        if not found.validate_config(config, spec):
            return [["", f"{kind} refuses these options for {spec.execution_provider}"]]
    except Exception as error:  # whatever a pass's own check raises is what is wrong with the options
        return [["", f"{kind} refuses these options: {_line(error)}"]]
    return []


def _missing(package: Any, kind: str) -> list[str]:
    """The distributions that Olive says the pass needs beside itself, and that are not here."""
    config = package.get_pass_module_config(kind)
    wanted = list(config.module_dependencies or [])
    for extra in config.extra_dependencies or []:
        wanted += package.extra_dependencies.get(extra, [])
    names = dict.fromkeys(re.split(r"[\[<>=!~; ]", one)[0] for one in wanted)
    return [name for name in names if not _is_here(name)]


def _is_here(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


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
