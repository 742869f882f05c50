"""Report cards as plain values: what follows from the measured figures, and what is refused as no card."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from edgewright_controller.quality import performance, report_card
from edgewright_controller.quality.divergence import Divergence
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.performance import Performance, PerformanceError, Round
from edgewright_controller.quality.report_card import CardError, Host, Origin, ReportCard

ROUNDS = (Round(60, 24, 0.5, 1.0, 1.4), Round(60, 24, 0.6, 1.15, 1.7), Round(62, 24, 0.4, 0.92, 1.3))
ENGINE: dict[str, Any] = {
    "engine": "xllamacpp",
    "version": "1",
    "accelerator": "cpu",
    "device": "cpu",
    "threads": 1,
    "load": 0.1,
}


def measured(*rounds: Round, peak: int = 200, **changes: Any) -> Performance:
    facts: dict[str, Any] = {**ENGINE, "memory_bytes": 180, "peak_bytes": peak, "alone": True, "measured_ms": 1}
    return performance.summary(rounds or ROUNDS, **{**facts, **changes})


def card(**changes: Any) -> ReportCard:
    found = Divergence(4096, 0.05, 0.01, 0.4, 0.9, 12.0, 1.05, 0.04)
    measures = Measures("gguf", 1000, 562, {"Q4_K": 700, "Q5_0": 200, "F32": 100}, divergence=found)
    whole = ReportCard(
        artifact="a" * 64,
        build_key="b" * 64,
        runtime="gguf",
        quantization="Q4_K_M",
        recipe={"runtime": "gguf", "quantization": "Q4_K_M", "options": {}},
        size_bytes=600,
        origin=Origin("c" * 64, "hf://org/name@1234", requantised=True, calibration="d" * 64),
        toolchain={"gguf": "0.19.0", "platform": "linux-x86_64"},
        host=Host("a processor", 2, 1 << 30, "Linux 6"),
        measures=measures,
        performance=measured(),
        parent=measured(*(dataclasses.replace(one, decode_s=2 * one.decode_s) for one in ROUNDS), peak=400),
        edgewright="0.1.0",
    )
    return dataclasses.replace(whole, **changes)


def test_figures_are_medians_over_the_rounds() -> None:
    found = measured()
    assert found.first_token_s == 0.5
    assert found.prefill_tokens_per_s == 120
    assert found.decode_tokens_per_s == 23
    assert found.spread == pytest.approx((23 / 0.92 - 20) / 23)
    assert found.processor_share == pytest.approx(4.4 / 4.57)
    assert not found.disturbed


def test_an_engine_that_did_not_get_its_processors_says_so() -> None:
    slow = [dataclasses.replace(one, processor_s=one.processor_s / 2) for one in ROUNDS]
    assert measured(*slow).disturbed
    assert measured(alone=False).disturbed
    assert card(performance=measured(*slow)).decode_speed_up is None, "the ratio would be the host's"
    assert card(performance=measured(alone=False)).decode_speed_up is not None


def test_a_model_that_ends_at_once_has_no_rate_of_decoding() -> None:
    found = measured(Round(60, 1, 0.5, 0.0, 0.5))
    assert found.decode_tokens_per_s is None
    assert card(performance=found).decode_speed_up is None
    with pytest.raises(PerformanceError, match="no answer"):
        performance.summary((), **ENGINE, memory_bytes=1, peak_bytes=1, alone=True, measured_ms=1)


def test_more_is_asked_of_a_quick_engine_than_of_a_slow_one() -> None:
    quick, slow = Round(60, 4, 0.1, 0.03, 0.1), Round(60, 4, 6.0, 3.0, 9.0)
    assert performance.tokens_to_ask(quick, 3.0, 32) == (5, 32)
    assert performance.tokens_to_ask(dataclasses.replace(quick, first_s=0.5), 3.0, 32) == (3, 32)
    assert performance.tokens_to_ask(quick, 3.0, 32, longer=8.0) == (3, 16), "longer prompts take longer"
    assert performance.tokens_to_ask(slow, 3.0, 32) == (0, 0)


def test_a_card_says_what_is_saved_against_the_unquantised_parent() -> None:
    whole = card()
    assert whole.decode_speed_up == pytest.approx(2)
    assert whole.prefill_speed_up == pytest.approx(1)
    assert whole.memory_saved == pytest.approx(0.5)
    assert whole.fallbacks == {"F32": 100, "Q5_0": 200}
    lonely = card(parent=None, parent_unmeasured="no room for it")
    assert (lonely.decode_speed_up, lonely.memory_saved) == (None, None)


def test_a_card_comes_back_as_it_was_written() -> None:
    for one in (card(), card(measures=None, performance=None, unmeasured="needs cuda", parent=None)):
        again = report_card.from_json(json.loads(one.encode()))
        assert again == one
        assert again.digest == one.digest


@pytest.mark.parametrize(
    "spoil",
    [
        {"edgewright_report_card": 2},
        {"performance": {"engine": 3}},
        {"origin": {"digest": "c", "more": 1}},
        {"recipe": 5},
        {"measures": {"runtime": "gguf"}},
    ],
)
def test_what_is_no_card_is_refused(spoil: dict[str, Any]) -> None:
    document = card().to_json()
    report_card.from_json(document)
    with pytest.raises(CardError):
        report_card.from_json(document | spoil)
    with pytest.raises(CardError):
        report_card.from_json([])
