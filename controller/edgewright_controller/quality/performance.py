"""How fast an artifact is served and in how much memory, from what was timed. Pure.

Times are those of a client of the engine, on the loopback: what a device's user will wait for. Each round asks another
question, and figures are medians over the rounds. Who else was at work shows in `processor_share`: what the engine got
of the processors that it was told to use, while it was asked. Far below 1, the figures say more of the host's load
than of the artifact.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

# With fewer tokens in all rounds together, no rate of decoding is told.
LEAST_DECODED: Final = 4
# Below this share of its processors an engine was not alone, and below that one its speed is compared with nothing.
ALONE_SHARE: Final = 0.85
COMPARED_SHARE: Final = 0.5


class PerformanceError(ValueError):
    """These are not the figures of a measured engine."""


@dataclass(frozen=True)
class Round:
    """One answer: tokens of prompt and answer, seconds until its first token and from that to its last, and the
    seconds of processor that the engine took for it all."""

    prompt_tokens: int
    tokens: int
    first_s: float
    decode_s: float
    processor_s: float


@dataclass(frozen=True)
class Performance:
    """What was measured on one artifact in one engine.

    `prefill_tokens_per_s` counts the prompt's tokens until the first one of the answer, `decode_tokens_per_s` those
    after it (None: the model ended too soon), `spread` is how far the rounds' rates of decoding lie apart, as a share
    of the median. `memory_bytes` are resident after the last answer, `peak_bytes` the most that ever were.
    `processor_share` and `load` (the host's average over a minute, before) tell who else was at work; `alone`: no
    other build of this controller was.
    """

    engine: str
    version: str
    accelerator: str
    device: str
    threads: int
    rounds: int
    prompt_tokens: int
    tokens: int
    first_token_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float | None
    spread: float
    memory_bytes: int
    peak_bytes: int
    processor_share: float
    load: float
    alone: bool
    measured_ms: int

    @property
    def disturbed(self) -> bool:
        """Whether something else took the processors meanwhile."""
        return not self.alone or self.processor_share < ALONE_SHARE

    @property
    def comparable(self) -> bool:
        """Whether it got enough of the processors for its speed to say something."""
        return self.processor_share >= COMPARED_SHARE

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Performance:
        """The figures in what `to_json` gave. Raises PerformanceError for anything else."""
        if not isinstance(document, Mapping):
            raise PerformanceError("not a JSON object")
        kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
        kinds["float | None"] = (int, float, type(None))
        for name, kind in cls.__annotations__.items():
            if name not in document or type(document[name]) not in kinds[kind]:
                raise PerformanceError(f"{name}: {document.get(name)!r} is not of type {kind}")
        # What a newer controller measures besides is left alone.
        return cls(**{name: document[name] for name in cls.__annotations__})


def summary(
    rounds: Sequence[Round],
    *,
    engine: str,
    version: str,
    accelerator: str,
    device: str,
    threads: int,
    memory_bytes: int,
    peak_bytes: int,
    load: float,
    alone: bool,
    measured_ms: int,
) -> Performance:
    """The figures over all rounds. Raises PerformanceError for none, or for one that took no time."""
    if not rounds or any(one.first_s <= 0 for one in rounds):
        raise PerformanceError("no answer was timed")
    decoded = sum(max(0, one.tokens - 1) for one in rounds)
    rates = [(one.tokens - 1) / one.decode_s for one in rounds if one.tokens > 1 and one.decode_s > 0]
    told = decoded >= LEAST_DECODED and bool(rates)
    seconds = sum(one.first_s + one.decode_s for one in rounds)
    return Performance(
        engine=engine,
        version=version,
        accelerator=accelerator,
        device=device,
        threads=threads,
        rounds=len(rounds),
        prompt_tokens=round(statistics.median(one.prompt_tokens for one in rounds)),
        tokens=round(statistics.median(one.tokens for one in rounds)),
        first_token_s=statistics.median(one.first_s for one in rounds),
        prefill_tokens_per_s=statistics.median(one.prompt_tokens / one.first_s for one in rounds),
        decode_tokens_per_s=statistics.median(rates) if told else None,
        spread=(max(rates) - min(rates)) / statistics.median(rates) if told else 0.0,
        memory_bytes=memory_bytes,
        peak_bytes=max(peak_bytes, memory_bytes),
        processor_share=min(1.0, sum(one.processor_s for one in rounds) / (seconds * max(1, threads))),
        load=load,
        alone=alone,
        measured_ms=measured_ms,
    )


def tokens_to_ask(pilot: Round, budget_s: float, most: int, longer: float = 1.0) -> tuple[int, int]:
    """(rounds, tokens of each) that fit into `budget_s` seconds at the pilot's speed, with prompts that are so many
    times as long as its own; (0, 0): not one round does."""
    each = pilot.decode_s / max(1, pilot.tokens - 1)
    for rounds, tokens in ((5, most), (3, most), (3, most // 2), (2, most // 2), (1, most // 2), (1, most // 4)):
        if rounds * (longer * pilot.first_s + tokens * each) <= budget_s:
            return rounds, tokens
    return 0, 0


def speed_up(
    artifact: Performance | None, parent: Performance | None, rate: Callable[[Performance], float | None]
) -> float | None:
    """By how many times the artifact's rate is the parent's; None where one is not known, or cannot be compared."""
    if artifact is None or parent is None or not (artifact.comparable and parent.comparable):
        return None
    ours, theirs = rate(artifact), rate(parent)
    return ours / theirs if ours and theirs else None


def saved(artifact_bytes: int, parent_bytes: int) -> float | None:
    """The share of the parent's bytes that the artifact does without; negative when it takes more."""
    return 1 - artifact_bytes / parent_bytes if parent_bytes > 0 else None
