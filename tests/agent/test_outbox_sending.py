from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.outbox.outbox import worth_sending
from edgewright_agent.outbox.sending import Pace, Sending
from edgewright_contract.v1 import agent_pb2


def spooled(seqs: Sequence[int]) -> Callable[[int, int], list[int]]:
    return lambda seq, limit: [number for number in sorted(seqs) if number > seq][:limit]


def drain(sending: Sending, now: float, after: Callable[[int, int], Sequence[int]]) -> list[int]:
    out = []
    while (seq := sending.choose(now, after)) is not None:
        out.append(seq)
    return out


def test_what_is_made_now_goes_before_the_backlog() -> None:
    sending, after = Sending(Pace()), spooled([1, 2, 3, 4, 5])
    sending.connected([4], end=4)
    sending.made(5)
    assert drain(sending, 0.0, after) == [4, 5, 1]


def test_the_backlog_goes_at_its_pace_and_is_sent_once() -> None:
    sending, after = Sending(Pace(backlog_per_s=5)), spooled([1, 2, 3])
    sending.connected([3], end=3)
    assert drain(sending, 0.0, after) == [3, 1]
    assert sending.due_s(0.0) == 0.2
    assert drain(sending, 0.1, after) == []
    assert drain(sending, 0.2, after) == [2]
    assert drain(sending, 9.0, after) == []
    assert sending.due_s(9.0) is None, "an idle outbox sets no timer"


def test_no_more_than_the_bound_is_on_its_way() -> None:
    sending, after = Sending(Pace(in_flight=2, backlog_per_s=1e9)), spooled(range(1, 10))
    sending.connected([], end=9)
    assert [sending.choose(n, after) for n in range(4)] == [1, 2, None, None]
    sending.confirmed(1, 4.0)
    assert sending.choose(5.0, after) == 3


def test_what_the_broker_confirmed_and_the_controller_did_not_store_is_sent_again() -> None:
    sending, after = Sending(Pace(backlog_per_s=1e9, again_after_s=300)), spooled([1, 2, 3])
    sending.connected([1, 2, 3], end=0)
    assert drain(sending, 0.0, after) == [1, 2, 3]
    for seq in (1, 2, 3):
        sending.confirmed(seq, 1.0)
    sending.settled(1, 100.0)
    assert drain(sending, 100.0, after) == []
    sending.settled(1, 302.0)
    assert drain(sending, 303.0, spooled([2, 3])) == [2]
    assert drain(sending, 304.0, spooled([2, 3])) == [3]


def test_a_new_connection_starts_over() -> None:
    sending, after = Sending(Pace(backlog_per_s=1e9)), spooled([1, 2, 3])
    sending.connected([], end=2)
    assert drain(sending, 0.0, after) == [1]
    sending.confirmed(1, 0.0)
    sending.connected([3], end=3)
    assert [drain(sending, float(turn), after) for turn in (1, 2, 3)] == [[3, 1], [2], []]


@given(st.lists(st.integers(min_value=1, max_value=300), unique=True), st.integers(min_value=0, max_value=300))
def test_every_envelope_in_the_spool_is_sent_exactly_once(seqs: list[int], live_from: int) -> None:
    sending, after = Sending(Pace(in_flight=1_000, backlog_per_s=1)), spooled(seqs)
    live = [seq for seq in seqs if seq > live_from]
    sending.connected(live, end=max(seqs, default=0))
    sent = []
    for turn in range(len(seqs) + 2):
        sent += drain(sending, float(turn), after)
    assert sorted(sent) == sorted(seqs)
    assert sending.due_s(1e9) is None


def test_progress_alone_is_thinned_and_everything_else_is_told() -> None:
    last = agent_pb2.DeviceStatus(step=agent_pb2.STEP_DOWNLOADING, done_bytes=10, sequence=4)
    more = agent_pb2.DeviceStatus(step=agent_pb2.STEP_DOWNLOADING, done_bytes=20, sequence=5)
    other = agent_pb2.DeviceStatus(step=agent_pb2.STEP_VERIFYING, done_bytes=20, sequence=6)
    assert worth_sending(None, last, 0.0)
    assert not worth_sending(last, more, 0.5)
    assert worth_sending(last, more, 2.5)
    assert worth_sending(last, other, 0.0)
    assert not worth_sending(last, last, 100.0)
