"""Files of settings, that is JSON which a loader believes: nothing in them may name code, or a place elsewhere.

Settings are small; a vocabulary is JSON too, and large, and is not looked through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from edgewright_contract.model_files import FileUnsafe, plain_json

MAX_BYTES: Final = 16 << 20
# Brackets and commas: each costs 60 bytes of memory or so at the worst.
MAX_PARTS: Final = 1 << 18
VOCABULARIES: Final = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json"})
GENAI: Final = "genai_config.json"

# Keys by which loaders find code: transformers, mlx-lm, onnxruntime-genai and its providers.
_CODE_KEYS: Final = frozenset(
    {"auto_map", "model_file", "custom_pipelines", "custom_ops_library", "custom_ops_libraries", "register_custom_ops"}
    | {"trt_extra_plugin_lib_paths", "ep_library_path", "shared_lib_path"}
)
# Keys by which tokenizers find files.
_FILE_KEYS: Final = frozenset({"vocab_file", "merges_file", "tokenizer_file", "spm_file", "sp_model_file"})
_SESSION_KEYS: Final = frozenset({"session_options", "run_options", "provider_options", "config_entries"})
_WRITES: Final = frozenset({"enable_profiling", "profile_file_prefix", "optimized_model_filepath"})
_PLACE_KEY = re.compile(r".*(file|folder|dir|cache|lib|library)_?(path|paths|dir|prefix)", re.IGNORECASE)
_LIBRARY = re.compile(r".*\.(so(\.[0-9]+)*|dll|dylib|pyd)", re.IGNORECASE)
# Qualcomm's own, which its models name and onnxruntime brings; by their bare names, so never from the artifact.
_BACKEND = re.compile(r"(lib)?Qnn(Htp|Cpu|Gpu|Saver)\.(dll|so)", re.IGNORECASE)


def read(path: Path) -> Any:
    """The document at `path`. Raises FileUnsafe when it is not plain JSON of bounded size, OSError."""
    with open(path, "rb") as file:
        if file.seek(0, 2) > MAX_BYTES:
            raise FileUnsafe("larger than any file of settings")
        file.seek(0)
        data = file.read()
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_PARTS:
        raise FileUnsafe("it has more parts than any file of settings")
    try:
        return plain_json.loads(data)
    except ValueError as error:
        raise FileUnsafe(f"not JSON: {error}") from error


def check(document: Any, refuses: Callable[[str], str], *, genai: bool) -> None:
    """Raise FileUnsafe when `document` names code, or a file that is not the artifact's.

    `refuses` says what is wrong with a path that stands in the document, or nothing. `genai`: onnxruntime-genai reads
    it, which loads the graphs that it names and does in a session what it says.
    """
    for key, value, in_session in _settings(document):
        if key in _CODE_KEYS or (key == "trust_remote_code" and value):
            raise FileUnsafe(f"{key}: refers to code, which a device does not run")
        named = key in _FILE_KEYS or (genai and (key == "filename" or key.endswith("_filename")))
        if named and isinstance(value, str):
            # A graph under another suffix is one that nobody looked into.
            graph = genai and key == "filename" and not value.endswith(".onnx")
            reason = "not a .onnx file" if graph else refuses(value)
            if reason:
                raise FileUnsafe(f"{key}: {value!r}: {reason}")
        if genai and in_session:
            _check_session(key, value)


def _check_session(key: str, value: Any) -> None:
    if key in _WRITES or (_PLACE_KEY.fullmatch(key) and value):
        raise FileUnsafe(f"{key}: has files read or written where the artifact says")
    if isinstance(value, str) and not _BACKEND.fullmatch(value):
        if _LIBRARY.fullmatch(value):
            raise FileUnsafe(f"{key}: {value!r} is a native library, which a device does not load for a model")
        if "/" in value or "\\" in value:
            raise FileUnsafe(f"{key}: {value!r} names a place outside the artifact")


def _settings(document: Any) -> Iterator[tuple[str, Any, bool]]:
    """Each key with its value, or with each value of its list; and whether it is among the options of a session."""
    waiting: list[tuple[str, Any, bool]] = [("", document, False)]
    while waiting:
        key, value, in_session = waiting.pop()
        if key:
            yield key, value, in_session
        if isinstance(value, dict):
            within = in_session or key in _SESSION_KEYS
            waiting += ((name, item, within) for name, item in value.items())
        elif isinstance(value, list):
            waiting += ((key, item, in_session) for item in value)
