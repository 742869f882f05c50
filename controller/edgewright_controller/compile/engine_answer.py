"""One answer of an engine, read as a client reads it: the events of an OpenAI-compatible stream, timed as they come."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Any


class BadStream(Exception):
    """The stream has an error in it, or does not say what it must."""


@dataclass(frozen=True)
class Answer:
    """One answer as a client sees it: tokens of prompt and answer, seconds until the first of them, and from that one
    to the last. The latter as the engine counts them, if it does: half a sign is held back until its other half is
    there, so that tokens may come in at once that were not made at once."""

    text: str
    prompt_tokens: int
    tokens: int
    first_s: float
    decode_s: float


def question(model: str, asked: Mapping[str, Any], most: int) -> dict[str, Any]:
    """What is sent for a greedy answer of at most `most` tokens. `asked`: the prompt, or the messages."""
    return {
        **asked,
        "model": model,
        "max_tokens": most,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        # llama.cpp's own: what an earlier prompt had in common with this one is computed again.
        "cache_prompt": False,
    }


async def read(lines: AsyncIterable[bytes], asked_at: float) -> Answer:
    """The answer in these lines, to a question that was put at `asked_at` (time.monotonic). Raises BadStream."""
    text: list[str] = []
    usage, timings = None, None
    first = last = asked_at
    async for line in lines:
        event = _event(line)
        if event is None:
            continue
        if "error" in event:
            raise BadStream(error_of(event))
        piece = _text_of(event)
        if piece:
            last = time.monotonic()
            first = first if text else last
            text.append(piece)
        usage, timings = event.get("usage") or usage, event.get("timings") or timings
    counts = usage if isinstance(usage, dict) else {}
    prompt_tokens, tokens = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if type(prompt_tokens) is not int or type(tokens) is not int:
        raise BadStream("did not say how many tokens it took and gave")
    ended = time.monotonic()
    counted_ms = timings.get("predicted_ms") if isinstance(timings, dict) else None
    decode_s = min(counted_ms / 1000, ended - asked_at) if isinstance(counted_ms, int | float) else last - first
    seen_s, made_s = (first if text else ended) - asked_at, ended - decode_s - asked_at
    first_s = min(seen_s, made_s) if made_s > 0 else seen_s
    return Answer("".join(text), prompt_tokens, tokens, first_s, decode_s)


def error_of(document: Any) -> str:
    """What an error document says, at most 500 characters."""
    error = document.get("error") if isinstance(document, dict) else None
    return str(error if error is not None else document)[:500]


def _event(line: bytes) -> dict[str, Any] | None:
    """One server-sent event, None for what is none or ends the stream."""
    if not line.startswith(b"data:"):
        return None
    try:
        document = json.loads(line.removeprefix(b"data:"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _text_of(event: Mapping[str, Any]) -> str:
    choices = event.get("choices")
    choice: dict[str, Any] = choices[0] if isinstance(choices, list) and choices and _is_object(choices[0]) else {}
    delta: dict[str, Any] = choice["delta"] if _is_object(choice.get("delta")) else {}
    # A model that thinks first says so under another name.
    for piece in (delta.get("content"), delta.get("reasoning_content"), choice.get("text")):
        if isinstance(piece, str) and piece:
            return piece
    return ""


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
