"""Which engine serves which runtime, under which interpreter, and whether it is installed there.

A runtime's interpreter is a setting: on a Snapdragon PC the agent is an x64 process and its ONNX engine an
arm64 one. An engine of one's own is a Python file that speaks the contract (edgewright_contract.engine).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_contract import engine as contract

CHILDREN: Final = Path(__file__).parent / "children"
_ASK_S: Final = 30.0


class EngineMissing(Exception):
    """No engine on this device can serve the runtime. The message says what to install or set."""


@dataclass(frozen=True)
class Engine:
    """One way to serve a runtime: a child's file, and the module that it needs.

    `own_server`: the runtime serves /v1 itself.
    `watcher`: a program that a launcher starts beside the child, which then cannot start it itself.
    """

    name: str
    runtime: str
    child: Path
    module: str
    extra: str
    capabilities: tuple[str, ...] = ()
    own_server: bool = False
    watcher: Path | None = None


@dataclass(frozen=True)
class EngineSettings:
    """[engines.RUNTIME] of agent.toml. `python`: an interpreter, empty for the agent's own. `engine`: a name of
    ENGINES or the path of a Python file; empty: the first that is installed. `threads`: per model."""

    python: str = ""
    threads: int = 1
    engine: str = ""

    @property
    def interpreter(self) -> str:
        """The interpreter's path."""
        return self.python or sys.executable


ENGINES: Final = (
    Engine(
        "xllamacpp",
        "gguf",
        CHILDREN / "xllamacpp_engine.py",
        "xllamacpp",
        "gguf",
        (contract.COMPLETIONS,),
        own_server=True,
        watcher=CHILDREN / "llama_log.py",
    ),
    Engine(
        "llama-cpp-python",
        "gguf",
        CHILDREN / "llamacpp_engine.py",
        "llama_cpp",
        "gguf",
        (contract.LOGITS,),
        watcher=CHILDREN / "llama_log.py",
    ),
    Engine("mlx-lm", "mlx", CHILDREN / "mlx_engine.py", "mlx_lm", "mlx", (contract.LOGITS,)),
    Engine(
        "onnxruntime-genai",
        "onnx",
        CHILDREN / "onnx_engine.py",
        "onnxruntime_genai",
        "onnx",
        (contract.LOGITS,),
    ),
)


def names(runtime: str) -> tuple[str, ...]:
    """The engines that come with the agent and serve this runtime."""
    return tuple(engine.name for engine in ENGINES if engine.runtime == runtime)


def find(runtime: str, settings: EngineSettings, capability: str = "") -> Engine:
    """The engine for `runtime`: the one set, else the first installed that has `capability`.

    The interpreter is asked once, and again when nothing that was found serves. Raises EngineMissing.
    """
    if settings.engine.endswith(".py"):
        child = Path(settings.engine)
        if not child.is_file():
            raise EngineMissing(f"engines.{runtime}.engine: no file {child}")
        return Engine(child.stem, runtime, child, "", "")
    candidates = [engine for engine in ENGINES if engine.runtime == runtime and settings.engine in ("", engine.name)]
    if not candidates:
        known = ", ".join(engine.name for engine in ENGINES if engine.runtime == runtime)
        if not known:
            raise EngineMissing(f"no engine serves the runtime {runtime!r}")
        raise EngineMissing(f"engines.{runtime}.engine: {settings.engine!r} is unknown; there are {known}")
    candidates = [engine for engine in candidates if not capability or capability in engine.capabilities]
    modules = tuple(engine.module for engine in ENGINES)
    for again in (False, True):  # what was missing may have been installed since
        installed = _installed(settings.interpreter, modules, again=again)
        for engine in candidates:
            if engine.module in installed:
                return engine
    wanted = " or ".join(engine.name for engine in candidates) or f"an engine with {capability}"
    raise EngineMissing(
        f"{settings.interpreter} has no {wanted} to serve {runtime}; pip install 'edgewright[{runtime}]' there, "
        f"or name another interpreter as engines.{runtime}.python"
    )


def available(settings: Mapping[str, EngineSettings], runtimes: Iterable[str] = ("gguf", "mlx", "onnx")) -> list[str]:
    """The runtimes that this device can serve. A runtime without settings gets the default ones."""
    found = []
    for runtime in runtimes:
        try:
            find(runtime, settings.get(runtime, EngineSettings()))
        except EngineMissing:
            continue
        found.append(runtime)
    return found


def command(engine: Engine, settings: EngineSettings, spec: contract.EngineSpec) -> list[str]:
    """The child's command line."""
    return [settings.interpreter, str(engine.child), "--spec", json.dumps(spec.to_json())]


_known: dict[tuple[str, int], frozenset[str]] = {}


def _installed(interpreter: str, modules: tuple[str, ...], *, again: bool) -> frozenset[str]:
    """Which modules the interpreter could import. Nothing is imported: a runtime is large, and may crash."""
    try:
        key = (interpreter, Path(interpreter).stat().st_mtime_ns)
    except OSError as error:
        raise EngineMissing(f"no interpreter {interpreter}: {error.strerror}") from error
    if interpreter == sys.executable:
        if again:
            importlib.invalidate_caches()
        return frozenset(name for name in modules if importlib.util.find_spec(name) is not None)
    if again or key not in _known:
        _known[key] = _ask(interpreter, modules)
    return _known[key]


def _ask(interpreter: str, modules: tuple[str, ...]) -> frozenset[str]:
    question = (
        "import importlib.util, json, sys\n"
        "print(json.dumps([m for m in sys.argv[1:] if importlib.util.find_spec(m) is not None]))"
    )
    try:
        asked = subprocess.run(
            [interpreter, "-c", question, *modules],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_S,
            check=True,
        )
        return frozenset(json.loads(asked.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EngineMissing(f"{interpreter} does not run as a Python interpreter: {error}") from error
