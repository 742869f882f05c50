"""OpenAI's shapes that the gateway itself reads and writes: requests' few fields, errors, usage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright_agent.gateway.meter import Usage


class BadRequest(ValueError):
    """The body is not a request. `param` names the field, empty for the body as a whole."""

    def __init__(self, message: str, param: str = "") -> None:
        self.param = param
        super().__init__(message)


@dataclass(frozen=True)
class Asked:
    """What the gateway needs to know of a request; the engine reads the rest."""

    model: str | None
    stream: bool


def asked(body: bytes) -> Asked:
    """The request in `body`. Raises BadRequest."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object")
    model, stream = document.get("model"), document.get("stream")
    if model is not None and not isinstance(model, str):
        raise BadRequest("model must be a string", "model")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("stream must be true or false", "stream")
    return Asked(model, bool(stream))


def error(kind: str, message: str, *, code: str | None = None, param: str = "") -> dict[str, Any]:
    """OpenAI's error document."""
    return {"error": {"message": message, "type": kind, "param": param or None, "code": code}}


def usage_of(document: Any) -> Usage:
    """What an answer, or a stream's last events, say of tokens and speed."""
    if not isinstance(document, Mapping):
        return Usage()
    counted, timed = document.get("usage"), document.get("timings")
    counted = counted if isinstance(counted, Mapping) else {}
    timed = timed if isinstance(timed, Mapping) else {}
    return Usage(
        prompt_tokens=int(_number(counted.get("prompt_tokens"))),
        output_tokens=int(_number(counted.get("completion_tokens")) or _number(timed.get("predicted_n"))),
        tokens_per_s=_number(timed.get("predicted_per_second")),
    )


def usage_of_stream(tail: bytes) -> Usage:
    """The same from the last bytes of a stream."""
    best = Usage()
    for line in tail.split(b"\n"):
        if line.startswith(b"data: {"):
            try:
                found = usage_of(json.loads(line[6:]))
            except ValueError:
                continue  # the first line of the tail is mostly cut
            best = Usage(
                found.prompt_tokens or best.prompt_tokens,
                found.output_tokens or best.output_tokens,
                found.tokens_per_s or best.tokens_per_s,
            )
    return best


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e12 else 0.0
