"""How far an artifact's next-token distributions are from its source's, and whether that is too far. Pure.

What a child measures at each position of the text: KL(source ‖ artifact) in nats over the whole vocabulary, whether
both would choose the same token, the log-probability that each gives to the token that really follows. From these come
llama.cpp's own figures (tools/perplexity, `--kl-divergence`): mean and 99th-percentile KL, same top token, the ratio
of perplexities, and the root mean square of the difference in the probability of the true token.

The mean is over a fixed mix of texts in chunks. Positions of a chunk depend on one another, so the error of the mean
is taken from the spread of the chunks' means, and a verdict that is clear after few chunks needs no more of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

# A verdict before the last chunk must stand so many standard errors away from the limit. Chunks are few and of
# different kinds of text, so this is far more than a normal distribution would need.
CLEAR: Final = 4.0
LEAST_CHUNKS: Final = 4


class MeasureError(ValueError):
    """The numbers of a child do not fit together: it is at fault, not the artifact."""


@dataclass(frozen=True)
class Chunk:
    """One piece of text. A number for each position that has a token after it: `kl` in nats, natural logarithms of
    the probabilities of the true next token. `same_top` counts positions."""

    kl: tuple[float, ...]
    source_log_p: tuple[float, ...]
    artifact_log_p: tuple[float, ...]
    same_top: int

    def __post_init__(self) -> None:
        count = len(self.kl)
        if not count or len(self.source_log_p) != count or len(self.artifact_log_p) != count:
            raise MeasureError(f"{count} divergences, {len(self.source_log_p)} and {len(self.artifact_log_p)} logs")
        if not 0 <= self.same_top <= count:
            raise MeasureError(f"{self.same_top} of {count} positions have the same top token")
        if any(math.isinf(value) for log in (self.source_log_p,) for value in log):
            raise MeasureError("the source gives a token of the text no probability at all")

    @property
    def mean_kl(self) -> float:
        """Mean KL of the chunk, in nats; infinite or NaN when the artifact's numbers are."""
        return _mean(self.kl)


@dataclass(frozen=True)
class Divergence:
    """What was measured over `tokens` positions. KL in nats; `same_top` is a share; `perplexity_ratio` is the
    artifact's over the source's; `rms_dp` is of probabilities, 0 to 1."""

    tokens: int
    kl: float
    kl_error: float
    kl_p99: float
    same_top: float
    perplexity: float
    perplexity_ratio: float
    rms_dp: float


@dataclass(frozen=True)
class DivergenceLimit:
    """What an artifact may cost: at most so much mean KL in nats, and, unless None, at most so large a 99th
    percentile and ratio of perplexities, and at least such a share of positions with the same top token."""

    kl: float
    kl_p99: float | None = None
    perplexity_ratio: float | None = None
    same_top: float | None = None


class Verdict(Enum):
    """What the chunks so far say."""

    PASS = "pass"
    REFUSE = "refuse"
    MORE = "more"  # too near the limit to tell from these


def summary(chunks: Sequence[Chunk]) -> Divergence:
    """The figures over all chunks. Raises MeasureError for none."""
    if not chunks:
        raise MeasureError("no chunk was measured")
    kl = sorted(value for chunk in chunks for value in chunk.kl)
    count = len(kl)
    source = [value for chunk in chunks for value in chunk.source_log_p]
    artifact = [value for chunk in chunks for value in chunk.artifact_log_p]
    # An artifact that rules the true token out has no perplexity; math.exp would raise beyond 709.
    ratio = _exp(_mean(source) - _mean(artifact))
    squares = [(math.exp(a) - math.exp(s)) ** 2 for s, a in zip(source, artifact, strict=True)]
    return Divergence(
        tokens=count,
        kl=_mean(kl),
        kl_error=_error(chunks),
        kl_p99=kl[min(count - 1, math.ceil(0.99 * count) - 1)],
        same_top=sum(chunk.same_top for chunk in chunks) / count,
        perplexity=_exp(-_mean(artifact)),
        perplexity_ratio=ratio,
        rms_dp=math.sqrt(_mean(squares)),
    )


def judge(chunks: Sequence[Chunk], limit: DivergenceLimit, *, last: bool) -> tuple[Verdict, tuple[str, ...]]:
    """Whether the artifact is within its limit, with each figure that is not, in words.

    `last`: no further chunk can be had, so the figures themselves decide.
    """
    found = summary(chunks)
    enough = last or not math.isfinite(found.kl) or len(chunks) >= LEAST_CHUNKS
    what = verdict(found, limit, last=last) if enough else Verdict.MORE
    return what, () if what is Verdict.MORE else exceeded(found, limit)


def verdict(found: Divergence, limit: DivergenceLimit, *, last: bool) -> Verdict:
    """`judge` for what was summed up over at least LEAST_CHUNKS chunks."""
    over = exceeded(found, limit)
    if last:
        return Verdict.REFUSE if over else Verdict.PASS
    if not math.isfinite(found.kl):
        return Verdict.REFUSE
    if abs(found.kl - limit.kl) <= CLEAR * found.kl_error:
        return Verdict.MORE
    if found.kl > limit.kl:
        return Verdict.REFUSE
    # The mean is clearly inside; the other figures are noisier than it, and only the whole text may refuse by them.
    return Verdict.MORE if over else Verdict.PASS


def exceeded(found: Divergence, limit: DivergenceLimit) -> tuple[str, ...]:
    """Each figure outside its limit, in words. A number that is none (NaN) is outside."""
    words = []
    if not found.kl <= limit.kl:
        words.append(f"mean KL {found.kl:.3g} nats, at most {limit.kl:.3g}")
    if limit.kl_p99 is not None and not found.kl_p99 <= limit.kl_p99:
        words.append(f"99th percentile of KL {found.kl_p99:.3g} nats, at most {limit.kl_p99:.3g}")
    if limit.perplexity_ratio is not None and not found.perplexity_ratio <= limit.perplexity_ratio:
        words.append(f"perplexity × {found.perplexity_ratio:.3f}, at most × {limit.perplexity_ratio:.3f}")
    if limit.same_top is not None and not found.same_top >= limit.same_top:
        words.append(f"same top token in {found.same_top:.1%} of places, at least {limit.same_top:.1%}")
    return tuple(words)


def _error(chunks: Sequence[Chunk]) -> float:
    """The standard error of the mean KL, from the chunks' means; infinite for one chunk."""
    if len(chunks) < 2:
        return math.inf
    means = [chunk.mean_kl for chunk in chunks]
    middle = _mean(means)
    return math.sqrt(sum((mean - middle) ** 2 for mean in means) / (len(means) - 1) / len(means))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
