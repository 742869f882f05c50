"""The chat template that an engine takes out of an artifact, and the digest by which a release pins it.

A template decides what the model is told in the user's name, so another one makes another model. The bundle binds its
bytes like all others; but which of the places where a template may stand counts is the engine's to choose, and engines
fall back to templates of their own. So the release says which one is meant, the device looks whether the artifact has
it, and an engine that can tell which one it took refuses to start with another.

An artifact with two different templates would be used by one engine so and by another otherwise: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgewright_contract import digest
from edgewright_contract.model_files import FileUnsafe, gguf_header, settings, texts

_FILE: Final = "chat_template.jinja"
_NAMED: Final = "additional_chat_templates/"
_TOKENIZER: Final = "tokenizer_config.json"


def of(files: Mapping[str, Path]) -> str:
    """The sha256 of the template, empty when there is none. `files`: path in the artifact → where it stands.

    Raises FileUnsafe, OSError.
    """
    found = _in_gguf(files) if any(name.endswith(".gguf") for name in files) else _beside(files)
    if len(found) > 1:
        raise FileUnsafe(f"the chat templates of {' and '.join(sorted(found.values()))} differ")
    return next(iter(found), "")


def _in_gguf(files: Mapping[str, Path]) -> dict[str, str]:
    """Digest → where it is. Parts of a split file but the first have none."""
    found = {}
    for name, path in sorted(files.items()):
        if name.endswith(".gguf") and not name.startswith("mmproj"):
            template = gguf_header.read(path).chat_template
            if template is not None:
                found[digest.of_bytes(template.encode())] = name
    return found


def _beside(files: Mapping[str, Path]) -> dict[str, str]:
    """As transformers and onnxruntime-genai look for it: a file of its own, or in the tokenizer's settings."""
    found = {}
    if f"{_NAMED}default.jinja" in files:
        raise FileUnsafe(f"{_NAMED}default.jinja takes the place of {_FILE}")
    if _TOKENIZER in files:
        template = _default(settings.read(files[_TOKENIZER]))
        if template is not None:
            found[digest.of_bytes(template.encode())] = _TOKENIZER
    if _FILE in files:
        texts.check_template(files[_FILE])
        found[digest.of_bytes(_text(files[_FILE]).encode())] = _FILE
    return found


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # ends of lines as the loaders read them
            return file.read()
    except UnicodeDecodeError as error:
        raise FileUnsafe(f"{_FILE} is not UTF-8: {error.reason} at {error.start}") from error


def _default(document: Any) -> str | None:
    """The template among a tokenizer's settings: one text, or the one named "default" of a list."""
    if not isinstance(document, Mapping):
        raise FileUnsafe(f"{_TOKENIZER} is no table")
    if document.get("chat_template_type"):
        # mlx-lm then renders by a module of its own; which one is what is pinned.
        return f"mlx_lm.chat_templates.{document['chat_template_type']}"
    template = document.get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, Mapping) and entry.get("name") == "default"]
        if len(entries) != 1:
            raise FileUnsafe(f"{_TOKENIZER} has several chat templates, and not one that is the default")
        template = entries[0].get("template")
    if template is not None and not isinstance(template, str):
        raise FileUnsafe(f"{_TOKENIZER}: its chat_template is no text")
    return template
