"""Which of a device's engines can be started here, and how each is found.

The engines are the agent's own children (decision 0003): scripts that need their runtime and nothing of Edgewright, run
by path. The controller finds the folder they are in and imports nothing of the agent.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_contract import engine as contract

_AGENT: Final = "edgewright_agent"
_CHILDREN: Final = ("engines", "children")
_ASK_S: Final = 30.0


class EngineMissing(Exception):
    """No engine for this runtime can be started here; the message says what to install."""


@dataclass(frozen=True)
class Engine:
    """A child's script among the agent's, the runtime that it serves, and the module that it needs."""

    name: str
    runtime: str
    script: str
    module: str
    capabilities: tuple[str, ...]


# In the order in which a device takes them.
ENGINES: Final = (
    Engine("xllamacpp", "gguf", "xllamacpp_engine.py", "xllamacpp", (contract.COMPLETIONS,)),
    Engine("llama-cpp-python", "gguf", "llamacpp_engine.py", "llama_cpp", (contract.LOGITS,)),
    Engine("mlx-lm", "mlx", "mlx_engine.py", "mlx_lm", (contract.LOGITS,)),
    Engine("onnxruntime-genai", "onnx", "onnx_engine.py", "onnxruntime_genai", (contract.LOGITS,)),
)


def children_folder() -> Path:
    """Where the agent's engines are, without importing it. Raises EngineMissing."""
    found = importlib.util.find_spec(_AGENT)
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place).joinpath(*_CHILDREN)
        if folder.is_dir():
            return folder
    raise EngineMissing(
        "the agent's package is not installed beside the controller, and its engines measure what is built;"
        " pip install 'edgewright[controller]' again, for both come in one package"
    )


def find(runtime: str, interpreter: str, capability: str = "") -> tuple[Engine, str]:
    """The engine that a device would take under this interpreter, and its version. Waits for a child.

    Raises EngineMissing.
    """
    fitting = [one for one in ENGINES if one.runtime == runtime and (not capability or capability in one.capabilities)]
    installed = _installed(interpreter, {one.module: one.name for one in fitting})
    for engine in fitting:
        if engine.module in installed:
            return engine, installed[engine.module]
    names = " or ".join(engine.name for engine in fitting) or "engine"
    raise EngineMissing(
        f"toolchain {runtime}: {interpreter} has no {names} to measure with; there, pip install 'edgewright[{runtime}]'"
    )


def _installed(interpreter: str, modules: Mapping[str, str]) -> dict[str, str]:
    """The version of each module that there is, by `modules`: module → distribution."""
    question = (
        "import importlib.metadata as m, importlib.util, json, sys\n"
        "there = {n: d for n, d in json.loads(sys.argv[1]).items() if importlib.util.find_spec(n) is not None}\n"
        "names = {d.metadata['Name'] for d in m.distributions()}\n"
        "print(json.dumps({n: m.version(d) if d in names else 'unknown' for n, d in there.items()}))"
    )
    try:
        asked = subprocess.run(
            [interpreter, "-I", "-c", question, json.dumps(dict(modules))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_S,
            check=True,
        )
        return {str(name): str(version) for name, version in json.loads(asked.stdout).items()}
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
        raise EngineMissing(f"{interpreter} does not run as a Python interpreter: {error}") from error
