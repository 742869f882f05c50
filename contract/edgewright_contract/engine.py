"""The engine contract: how a model is served by a child process, whatever its runtime.

An engine is a program that its parent starts as `PYTHON CHILD.py --spec JSON`, where JSON is
`EngineSpec.to_json()`. It runs under its own interpreter and imports nothing of Edgewright, so this module is
its documentation and the parent's half of it.

Life. The child listens on 127.0.0.1 only, prints one line `{"port": N, "openai_port": N}` on its standard
output, and only then loads the model. What it prints later is log, and goes to standard error. It ends when its
standard input closes, so it never outlives its parent. SIGTERM ends it too.

Confined. Where the parent confines the child, it appends `--sockets FD` or `--sockets FD,FD`: inherited sockets on
127.0.0.1, to serve on instead of opening any. The first listens already and is for `/engine`, and for `/v1` too when it
is the only one. A second one, given to a runtime with a server of its own, is bound with SO_REUSEPORT and does not
listen: it holds the port of that server. With `--apart` the child has a network of its own, in which nobody else is and
none of its own sockets can be reached from outside: it then listens on the second one and passes on what comes.
A confined child has its home and its temporary files in one folder that is removed after it; it reads its artifact, its
interpreter and the system's libraries; it starts no process and connects to nobody.

Every request bears `Authorization: Bearer SECRET`; SECRET is in the environment variable SECRET_VARIABLE. It keeps
other users of the machine out. Anything else is answered 401.

    GET  /engine/ready    200 {"state": "ready"} once a token was generated; before that 503 {"state": "loading"};
                          503 {"state": "failed", "error": "…"} when it will never be. With `?token=now` a further
                          token is generated before the answer: the way to tell a hung engine from a quiet one.
    GET  /engine/info     EngineInfo, as the runtime itself accounts for it
    GET  /engine/memory   EngineMemory
    POST /engine/logits   (capability "logits") {"tokens": [1, 2, …]} or {"text": "…"} → one row of float32,
                          little-endian, for each token; headers Edgewright-Rows, Edgewright-Columns and
                          Edgewright-Tokens (the ids, with commas, since `text` was turned into some)

and on `openai_port`, which may be the same port:

    POST /v1/chat/completions   OpenAI's shape, plain or as server-sent events; usage counts tokens
    POST /v1/completions        (capability "completions")
    GET  /v1/models

When the client of a stream goes away, generation stops. A model's name that the engine does not serve is never
looked up anywhere. The chat template is the artifact's, rendered in a sandbox and within bounds; with the option
`chat_template`, its sha256, an engine that knows which one it took does not load with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

SECRET_VARIABLE: Final = "EDGEWRIGHT_ENGINE_SECRET"
LOGITS: Final = "logits"
COMPLETIONS: Final = "completions"
OPTIONS: Final = (
    *("context", "parallel", "threads", "gpu_layers", "chat_template", "flash_attention", "cache_type_k"),
    *("cache_type_v", "batch_size", "ubatch_size", "mmap", "mlock", "main_gpu", "tensor_split", "split_mode"),
)


class EngineReplyError(ValueError):
    """The child answered something that is not this contract."""


@dataclass(frozen=True)
class EngineSpec:
    """What to serve. `artifact` is a folder; `model` the name that requests use; `accelerator` what the release
    was made for. `options` are the runtime's, by the names in OPTIONS; an engine takes what it knows.
    `memory_bytes` is what serving it was predicted to need; 0: nobody knows."""

    runtime: str
    artifact: str
    model: str
    accelerator: str = "cpu"
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    memory_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The document for `--spec`."""
        return {**asdict(self), "options": dict(self.options)}


@dataclass(frozen=True)
class Listening:
    """The child's one line on standard output: the ports on 127.0.0.1."""

    port: int
    openai_port: int


@dataclass(frozen=True)
class EngineInfo:
    """What runs, and on what. `accelerator` is the kind that the runtime itself says computes ("cpu", "cuda", …),
    `device` the same for a person. Layers are 0 where the runtime does not count them."""

    engine: str
    version: str
    accelerator: str
    device: str
    layers: int
    layers_offloaded: int
    context: int
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class EngineMemory:
    """Bytes that the child holds now: resident, and on an accelerator with memory of its own."""

    rss_bytes: int
    vram_bytes: int


def listening(document: Any) -> Listening:
    """The child's first line. Raises EngineReplyError."""
    ports = [_whole(document, key) for key in ("port", "openai_port")]
    if not all(0 < port < 1 << 16 for port in ports):
        raise EngineReplyError(f"{ports} are not ports")
    return Listening(*ports)


def info(document: Any) -> EngineInfo:
    """The answer of /engine/info. Raises EngineReplyError."""
    capabilities = document.get("capabilities") if isinstance(document, Mapping) else None
    if not isinstance(capabilities, list) or not all(isinstance(name, str) for name in capabilities):
        raise EngineReplyError("capabilities: not a list of names")
    return EngineInfo(
        engine=_text(document, "engine"),
        version=_text(document, "version"),
        accelerator=_text(document, "accelerator"),
        device=_text(document, "device"),
        layers=_whole(document, "layers"),
        layers_offloaded=_whole(document, "layers_offloaded"),
        context=_whole(document, "context"),
        capabilities=tuple(capabilities),
    )


def memory(document: Any) -> EngineMemory:
    """The answer of /engine/memory. Raises EngineReplyError."""
    return EngineMemory(_whole(document, "rss_bytes"), _whole(document, "vram_bytes"))


def _whole(document: Any, key: str) -> int:
    value = document.get(key) if isinstance(document, Mapping) else None
    if type(value) is not int or value < 0:
        raise EngineReplyError(f"{key}: {value!r} is not a whole number")
    return value


def _text(document: Any, key: str) -> str:
    value = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(value, str) or len(value) > 200:
        raise EngineReplyError(f"{key}: {value!r} is not a short text")
    return value
