"""A question that a new version must answer before it takes traffic, asked of its engine directly."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp

from edgewright_agent.engines import reply
from edgewright_contract.release import Probe

_MAX_ANSWER_BYTES: Final = 1 << 20
_SHOWN: Final = 200


class Endpoint(Protocol):
    """Where to ask; engines.process.EngineProcess is one."""

    @property
    def model(self) -> str:
        """The name under which it serves."""

    @property
    def openai_url(self) -> str:
        """Its base URL, ending in /v1."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """The client that may talk to it."""


@dataclass(frozen=True)
class ProbeResult:
    """How it went. `answer` is shortened; `reason` is empty when it passed, else one line for a person. `cut_off`:
    the connection broke, so the engine may have ended."""

    name: str
    passed: bool
    answer: str
    seconds: float
    reason: str = ""
    cut_off: bool = False


async def run(engine: Endpoint, probe: Probe) -> ProbeResult:
    """Ask once, greedily, within the probe's own time. A fault of the engine is a failed probe, never raised."""
    began = time.monotonic()
    cut_off = False
    try:
        answer = await asyncio.wait_for(_ask(engine, probe), probe.timeout_s)
        reason = judge(probe, answer)
    except asyncio.TimeoutError:
        answer, reason = "", f"no answer within {probe.timeout_s} s"
    except (aiohttp.ClientError, ValueError) as error:
        answer, reason = "", f"the engine did not answer: {error or type(error).__name__}"
        cut_off = isinstance(error, aiohttp.ClientError)
    shown = f"probe {probe.name}: {reason}" if reason else ""
    return ProbeResult(probe.name, not reason, answer[:_SHOWN], time.monotonic() - began, shown, cut_off)


def judge(probe: Probe, answer: str) -> str:
    """Why `answer` does not satisfy the probe; empty when it does."""
    if not answer.strip():
        return "the answer is empty"
    if probe.expect and probe.expect not in answer:
        return f"expected {probe.expect!r} in the answer, got {answer[:_SHOWN]!r}"
    if probe.expect_regex and not re.search(probe.expect_regex, answer):
        return f"expected a match of {probe.expect_regex!r}, got {answer[:_SHOWN]!r}"
    return ""


async def _ask(engine: Endpoint, probe: Probe) -> str:
    question = {
        "model": engine.model,
        "messages": [{"role": "user", "content": probe.prompt}],
        "max_tokens": probe.max_tokens,
        "temperature": 0,
        "seed": 0,
    }
    async with engine.session.post(f"{engine.openai_url}/chat/completions", json=question) as response:
        document: Any = json.loads(await reply.body(response, _MAX_ANSWER_BYTES))
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {str(document)[:_SHOWN]}")
        try:
            answer = document["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"no answer in {str(document)[:_SHOWN]}") from error
        if not isinstance(answer, str):
            raise ValueError(f"the answer is not text: {str(answer)[:_SHOWN]}")
        return answer
