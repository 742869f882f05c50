"""What the gateway counts."""

from __future__ import annotations

import pytest

from edgewright_agent.gateway import openai_shape
from edgewright_agent.gateway.meter import End, Meter, Usage


def test_a_window_counts_what_happened_in_it_and_the_next_begins_empty() -> None:
    meter = Meter(100.0)
    request = meter.begin(100.0)
    request.piece(100.2, 1)
    request.piece(100.7, 5)
    request.end(101.0, End.ANSWERED, Usage(prompt_tokens=7, output_tokens=6))
    still = meter.begin(101.0)
    meter.reject()
    window = meter.snapshot(110.0)
    assert (window.window_s, window.requests, window.errors, window.rejected) == (10.0, 2, 0, 1)
    assert (window.prompt_tokens, window.output_tokens, window.active_requests) == (7, 6, 1)
    assert window.decode_tokens_per_s == pytest.approx(5 / 0.5)
    assert window.request_s.sum == pytest.approx(1.0)
    assert window.request_s.counts[window.request_s.bounds.index(1.0)] == 1  # bounds are upper-inclusive
    assert window.time_to_first_token_s.sum == pytest.approx(0.2)
    assert len(window.time_to_first_token_s.counts) == len(window.time_to_first_token_s.bounds) + 1
    still.end(111.0, End.FAILED)
    later = meter.snapshot(112.0)
    assert (later.requests, later.errors, later.active_requests, sum(later.request_s.counts)) == (0, 1, 0, 0)


def test_the_engines_own_speed_counts_before_ours_and_the_window_has_the_median() -> None:
    meter = Meter(0.0)
    for speed in (10.0, 30.0, 20.0):
        meter.begin(0.0).end(1.0, End.ANSWERED, Usage(tokens_per_s=speed))
    assert meter.snapshot(2.0).decode_tokens_per_s == 20.0


def test_a_client_that_leaves_is_no_error() -> None:
    meter = Meter(0.0)
    meter.begin(0.0).end(1.0, End.CLIENT_LEFT)
    assert meter.snapshot(2.0).errors == 0


def test_usage_is_read_from_the_end_of_a_stream_even_when_its_first_line_is_cut() -> None:
    tail = (
        b'es":[{"delta":{"content":"x"}}]}\n\n'
        b'data: {"choices":[],"timings":{"predicted_n":9,"predicted_per_second":81.5}}\n\n'
        b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
    )
    assert openai_shape.usage_of_stream(tail) == Usage(4, 9, 81.5)


@pytest.mark.parametrize(
    "document", [None, [], {"usage": 3}, {"usage": {"prompt_tokens": -1, "completion_tokens": "9"}}]
)
def test_usage_that_is_none_counts_nothing(document: object) -> None:
    assert openai_shape.usage_of(document) == Usage()
