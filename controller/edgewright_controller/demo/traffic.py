"""Requests to every device while versions come and go. The demo's claim is that none of them fails."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

REQUEST_S: Final = 120.0
PAUSE_S: Final = 1.0  # between two requests to one device: two cores serve three engines here


@dataclass(frozen=True)
class Answer:
    """One answer and how fast it came. Rates are None where fewer than two tokens came."""

    text: str
    seconds: float
    first_token_s: float
    tokens: int
    tokens_per_s: float | None


class AnswerError(Exception):
    """A device did not answer as an OpenAI-compatible endpoint should."""


def ask(endpoint: str, model: str, question: str, max_tokens: int) -> Answer:
    """Ask over `endpoint` ("http://host:port/v1"), streaming. Raises AnswerError."""
    url = urlsplit(endpoint)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=REQUEST_S)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start = time.monotonic()
    try:
        connection.request("POST", url.path + "/chat/completions", json.dumps(body), _JSON)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise AnswerError(f"{endpoint}: HTTP {response.status}: {response.read(2000).decode(errors='replace')}")
        return _read(endpoint, response, start)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AnswerError(f"{endpoint}: {error!r}") from error
    finally:
        connection.close()


_JSON: Final = {"Content-Type": "application/json"}


def _read(endpoint: str, response: http.client.HTTPResponse, start: float) -> Answer:
    text, arrivals, tokens, done = "", [], 0, False
    while line := response.readline(1 << 16):
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            done = True
            break
        chunk: dict[str, Any] = json.loads(data)
        if "error" in chunk:
            raise AnswerError(f"{endpoint}: {chunk['error']}")
        for choice in chunk.get("choices", ()):
            if piece := choice.get("delta", {}).get("content"):
                text += piece
                arrivals.append(time.monotonic())
        if usage := chunk.get("usage"):
            tokens = usage["completion_tokens"]
    if not done:
        raise AnswerError(f"{endpoint}: the stream ended before [DONE] after {len(text)} characters")
    if not text:
        raise AnswerError(f"{endpoint}: an empty answer")
    tokens = tokens or len(arrivals)
    span = arrivals[-1] - arrivals[0]
    rate = (len(arrivals) - 1) / span if len(arrivals) > 1 and span > 0 else None
    return Answer(text, time.monotonic() - start, arrivals[0] - start, tokens, rate)


@dataclass(frozen=True)
class Tally:
    """Requests of one device so far."""

    answered: int
    failed: int
    last_failure: str


class Traffic:
    """One request at a time to each device, from `start` to `stop`."""

    def __init__(self, endpoints: dict[str, str], model: str) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tallies = {device: Tally(0, 0, "") for device in endpoints}
        self._threads = [
            threading.Thread(target=self._run, args=(device, endpoint, model), daemon=True)
            for device, endpoint in endpoints.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> dict[str, Tally]:
        """End after the requests under way, and return what came of all."""
        self._stop.set()
        for thread in self._threads:
            thread.join(REQUEST_S)
        return self.tallies()

    def tallies(self) -> dict[str, Tally]:
        """What came of the requests so far, by device."""
        with self._lock:
            return dict(self._tallies)

    def _run(self, device: str, endpoint: str, model: str) -> None:
        while not self._stop.wait(PAUSE_S):
            try:
                ask(endpoint, model, "Name a colour.", max_tokens=6)
            except AnswerError as error:
                self._count(device, Tally(0, 1, str(error)))
            else:
                self._count(device, Tally(1, 0, ""))

    def _count(self, device: str, new: Tally) -> None:
        with self._lock:
            old = self._tallies[device]
            self._tallies[device] = Tally(
                old.answered + new.answered, old.failed + new.failed, new.last_failure or old.last_failure
            )
