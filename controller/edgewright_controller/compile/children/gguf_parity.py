"""GGUF → what the device's engines make of texts and chats: llama.cpp's own server, and llama-cpp-python's bindings.

Devices have the one or the other, and they render by different interpreters of the same template.

Request: {"artifact": file, or folder with one, "texts": {name: text}, "chats": {name: [message, …]}}
Result: {"ids": {name: [id, …]}, "chats": {name: text}, "engine": name, "version": of the runtime, "others": [the same
of each further engine that is installed here]}
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from engine_parity import ask, engine
from stage import Say, StageError, run

_ENGINES = (("xllamacpp_engine", "Xllamacpp"), ("llamacpp_engine", "LlamaCpp"))


def parity(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for llama.cpp")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(request["artifact"])
        if folder.is_file():
            # An engine is given a folder, as a device has it.
            Path(scratch, "model.gguf").symlink_to(folder.absolute())
            folder = Path(scratch)
        for module, kind in _ENGINES:
            try:
                runtime = engine(module, kind, str(folder))
            except ImportError as error:
                print(f"{module} is not asked: {error}", file=sys.stderr)
                continue
            found.append(ask(runtime, request["texts"], request["chats"], say))
    if not found:
        raise StageError("neither xllamacpp nor llama-cpp-python is installed for this interpreter")
    return {**found[0], "others": found[1:]}


if __name__ == "__main__":
    sys.exit(run(parity))
