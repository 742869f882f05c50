"""Figures of divergence against their definitions, and verdicts that wait until they are clear."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_controller.quality.divergence import (
    LEAST_CHUNKS,
    Chunk,
    DivergenceLimit,
    MeasureError,
    Verdict,
    exceeded,
    judge,
    summary,
)


def chunk(kl: float, *, spread: float = 0.0, positions: int = 50, seed: int = 0, same: float = 1.0) -> Chunk:
    rng = random.Random(seed)
    values = tuple(max(0.0, kl + spread * rng.uniform(-1, 1)) for _ in range(positions))
    logs = tuple(rng.uniform(-4, -0.1) for _ in range(positions))
    return Chunk(values, logs, tuple(value - kl for value in logs), round(same * positions))


def test_an_artifact_that_equals_its_source_diverges_by_nothing() -> None:
    logs = tuple(math.log(p) for p in (0.5, 0.25, 0.9))
    found = summary([Chunk((0.0, 0.0, 0.0), logs, logs, 3)])
    assert (found.kl, found.kl_p99, found.perplexity_ratio, found.rms_dp, found.same_top) == (0, 0, 1, 0, 1)
    assert found.tokens == 3


def test_the_figures_are_those_of_their_definitions() -> None:
    source, artifact = (0.5, 0.25), (0.25, 0.25)
    found = summary([Chunk((0.3, 0.1), tuple(map(math.log, source)), tuple(map(math.log, artifact)), 1)])
    assert found.kl == pytest.approx(0.2)
    assert found.kl_p99 == pytest.approx(0.3)
    assert found.perplexity == pytest.approx(1 / math.sqrt(0.25 * 0.25))
    assert found.perplexity_ratio == pytest.approx(math.sqrt(2))
    assert found.rms_dp == pytest.approx(0.25 / math.sqrt(2))
    assert found.same_top == 0.5


@given(st.permutations(range(8)))
def test_the_order_of_chunks_does_not_matter(order: list[int]) -> None:
    chunks = [chunk(0.1 * (1 + seed), spread=0.05, seed=seed) for seed in range(8)]
    assert summary([chunks[i] for i in order]).kl == pytest.approx(summary(chunks).kl)


def test_a_clear_artifact_passes_early_and_a_clearly_bad_one_is_refused_early() -> None:
    limit = DivergenceLimit(0.4)
    good = [chunk(0.05, spread=0.01, seed=seed) for seed in range(LEAST_CHUNKS)]
    bad = [chunk(2.0, spread=0.1, seed=seed) for seed in range(LEAST_CHUNKS)]
    assert judge(good, limit, last=False) == (Verdict.PASS, ())
    verdict, why = judge(bad, limit, last=False)
    assert verdict is Verdict.REFUSE
    assert "mean KL" in why[0]
    assert judge(good[:-1], limit, last=False)[0] is Verdict.MORE


def test_what_is_near_the_limit_needs_the_whole_text_and_then_the_figure_decides() -> None:
    near = [chunk(0.40 + 0.05 * (-1) ** seed, seed=seed) for seed in range(8)]
    assert judge(near, DivergenceLimit(0.41), last=False)[0] is Verdict.MORE
    assert judge(near, DivergenceLimit(0.41), last=True)[0] is Verdict.PASS
    assert judge(near, DivergenceLimit(0.39), last=True)[0] is Verdict.REFUSE


@pytest.mark.parametrize(
    ("limit", "word"),
    [
        (DivergenceLimit(1.0, kl_p99=0.05), "99th percentile"),
        (DivergenceLimit(1.0, perplexity_ratio=1.01), "perplexity"),
        (DivergenceLimit(1.0, same_top=0.95), "same top token"),
    ],
)
def test_every_figure_can_refuse_but_only_over_the_whole_text(limit: DivergenceLimit, word: str) -> None:
    chunks = [chunk(0.1, seed=seed, same=0.9) for seed in range(LEAST_CHUNKS)]
    assert judge(chunks, DivergenceLimit(1.0), last=True)[0] is Verdict.PASS
    assert judge(chunks, limit, last=False)[0] is Verdict.MORE
    verdict, why = judge(chunks, limit, last=True)
    assert verdict is Verdict.REFUSE
    assert word in why[0]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused_at_once(number: float) -> None:
    chunks = [chunk(0.01, seed=1), Chunk((number,), (-1.0,), (-math.inf,), 0)]
    assert judge(chunks, DivergenceLimit(0.4), last=False)[0] is Verdict.REFUSE
    assert exceeded(summary(chunks), DivergenceLimit(0.4))


@pytest.mark.parametrize(
    "numbers",
    [
        ((), (), (), 0),
        ((0.1,), (), (-1.0,), 0),
        ((0.1,), (-1.0,), (-1.0,), 2),
        ((0.1,), (-math.inf,), (-1.0,), 0),
    ],
)
def test_numbers_that_do_not_fit_together_are_the_childs_fault(numbers: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(MeasureError):
        Chunk(*numbers)  # type: ignore[arg-type]
    with pytest.raises(MeasureError):
        summary([])
