"""What a device's engine makes of texts and chats, asked of the very code that serves them there.

The engines are files of the agent, which is installed beside the controller, and are run by their paths as this is.
Imported by the stages that compare.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stage import Say, StageError

_ENGINES = Path("edgewright_agent", "engines", "children")
_CONTEXT = 512


def engine(module: str, kind: str, artifact: str) -> Any:
    """The engine of class `kind` in the agent's file `module`, with the artifact's folder loaded.

    Raises StageError when the agent is not there, ImportError when the runtime is not installed here.
    """
    package = Path(__file__).resolve().parents[2]
    # Installed, the packages are neighbours; in the sources each stands in a folder of its own.
    for place in (package.parent / _ENGINES, package.parents[1] / "agent" / _ENGINES):
        if place.is_dir():
            sys.path.append(str(place))
            break
    else:
        raise StageError(f"{package.parent / _ENGINES}: the engines are not there; is the agent installed too?")
    spec = {"model": "parity", "artifact": artifact, "accelerator": "cpu", "options": {"context": _CONTEXT}}
    made = getattr(importlib.import_module(module), kind)(spec, "nobody else knows")
    made.load()
    return made


def ask(runtime: Any, texts: Mapping[str, str], chats: Mapping[str, Sequence[Any]], say: Say) -> dict[str, Any]:
    """{"ids": {name: ids}, "chats": {name: text}}: what the engine does not take is left out, and told in the log.

    The ids of a chat, as they reach the model, are among the ids under the name that `chat_ids` gives.
    """
    ids: dict[str, list[int]] = {}
    rendered: dict[str, str] = {}
    for number, (name, text) in enumerate(texts.items(), 1):
        say(0.5 + 0.3 * number / len(texts), f"text {number} of {len(texts)}")
        _try(name, ids, lambda text=text: runtime.encode_text(text))
    for number, (name, messages) in enumerate(chats.items(), 1):
        say(0.8 + 0.2 * number / len(chats), f"chat {number} of {len(chats)}")
        _try(name, rendered, lambda messages=messages: runtime.render_chat(messages))
        if name in rendered:
            _try(chat_ids(name), ids, lambda messages=messages: runtime.encode_chat(messages))
    return {"ids": ids, "chats": rendered, "engine": runtime.name, "version": runtime.version()}


def chat_ids(name: str) -> str:
    """Under which name the ids of this chat stand beside those of the texts."""
    return f"chat: {name}"


def _try(name: str, found: dict[str, Any], make: Any) -> None:
    try:
        found[name] = make()
    except Exception:  # whatever an engine raises, it means that this one is not served
        print(f"{name!r} is not taken:", file=sys.stderr)
        traceback.print_exc()
