"""Timing engines: a short question to each to learn its speed, then rounds of longer ones, the engines in turn.

Taking turns makes what the host does besides fall on all of them alike. How much is asked follows from the slowest, so
that all are asked the same and a slow one costs no more than a fast one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Final

from edgewright_controller.compile.engine_child import EngineChild
from edgewright_controller.quality import performance
from edgewright_controller.quality.performance import Performance, Round
from edgewright_controller.unix_time import unix_ms

# Raised when something else is asked, or in another way: figures are compared only with those of the same questions.
QUESTIONS: Final = 1
BUDGET_S: Final = 1.5
MOST_TOKENS: Final = 32
PILOT_TOKENS: Final = 6
DEADLINE_S: Final = 900.0
CONTEXT: Final = 512

_PILOT: Final = "Name a colour and say why you like it."
_QUESTION: Final = (
    "{0} people live in a lighthouse on a small island. Tell me, in as many words as you like, what they do on a winter"
    " day, hour by hour, from the first light in the morning until the lamp is lit again."
)
# How much longer it makes a prompt, of which the chat template is a part.
_LONGER: Final = 1.8
# Each begins otherwise, so that no engine has seen the beginning of a question before.
_NUMBERS: Final = ("Seven", "Three", "Twelve", "Two", "Nine")


async def timed(
    engines: Sequence[EngineChild], threads: int, *, alone: bool, budget_s: float = BUDGET_S
) -> list[Performance]:
    """The figures of each engine, all ready. Raises EngineFailed."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    rounds: list[list[Round]] = [[await _round(engine, _PILOT, PILOT_TOKENS)] for engine in engines]
    asks = [performance.tokens_to_ask(pilot, budget_s, MOST_TOKENS, _LONGER) for (pilot,) in rounds]
    count, tokens = min(asks, default=(0, 0))
    if count:
        rounds = [[] for _ in engines]
    for number in _NUMBERS[:count]:
        for engine, of_engine in zip(engines, rounds, strict=True):
            of_engine.append(await _round(engine, _QUESTION.format(number), tokens))
    found = []
    for engine, of_engine in zip(engines, rounds, strict=True):
        info, memory = await engine.info(), await engine.memory()
        found.append(
            performance.summary(
                of_engine,
                engine=info.engine,
                version=info.version,
                accelerator=info.accelerator,
                device=info.device,
                threads=threads,
                memory_bytes=memory.rss_bytes + memory.vram_bytes,
                peak_bytes=engine.peak_rss_bytes() + memory.vram_bytes,
                load=load,
                alone=alone,
                measured_ms=unix_ms(datetime.now(timezone.utc)),
            )
        )
    return found


async def _round(engine: EngineChild, question: str, most: int) -> Round:
    before = engine.processor_s()
    answer = await engine.generate(question, most, DEADLINE_S)
    taken = engine.processor_s() - before
    return Round(answer.prompt_tokens, answer.tokens, answer.first_s, answer.decode_s, taken)
