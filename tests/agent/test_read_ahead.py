"""Messages that are taken off a stream before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edgewright_agent.read_ahead import ahead


def test_messages_come_in_their_order_and_end() -> None:
    assert list(ahead(range(1000), lambda: None, most=3)) == list(range(1000))


def test_what_came_before_an_error_comes_before_it_however_late_it_is_asked_for() -> None:
    broken = threading.Event()

    def line() -> Iterator[int]:
        yield from range(5)
        broken.set()
        raise ConnectionError("cut")

    parts = ahead(line(), lambda: None, most=10)
    got = [next(parts)]
    assert broken.wait(30), "the rest was taken while the first part was worked on"
    with pytest.raises(ConnectionError, match="cut"):
        got.extend(parts)
    assert got == list(range(5))


def test_who_leaves_early_ends_the_stream_and_its_thread() -> None:
    ended = threading.Event()

    def line() -> Iterator[int]:
        while not ended.is_set():
            yield 1

    before = threading.active_count()
    parts = ahead(line(), ended.set, most=2)
    assert next(parts) == 1
    parts.close()
    assert ended.is_set()
    assert threading.active_count() == before
