"""Who may download now, and which reader is too slow: decided without a network, with time as a number."""

from __future__ import annotations

import random

import pytest

from edgewright_controller.service.download_slots import GRACE_S, LONGEST_WAIT_S, DownloadSlots, TooMany
from edgewright_controller.service.reading import PATIENCE_IN_A_CROWD_S, SLOWEST_BYTES_PER_S, Reading

PART = 256 << 10


def refused(slots: DownloadSlots, device: str, now: float) -> float:
    with pytest.raises(TooMany) as told:
        slots.take(device, now)
    return told.value.again_s


def test_slots_are_given_until_there_is_none_and_each_that_comes_back_is_given_again() -> None:
    slots = DownloadSlots(2, chance=random.Random(1))
    slots.take("a", 0.0)
    slots.take("b", 0.0)
    assert not slots.crowded
    again_s = refused(slots, "c", 0.0)
    assert 0.5 <= again_s <= LONGEST_WAIT_S * 1.5
    assert slots.crowded
    slots.give_back("a", 1.0)
    slots.take("c", again_s)
    assert not slots.crowded
    refused(slots, "d", again_s)


def test_who_came_later_does_not_overtake_who_waits() -> None:
    slots = DownloadSlots(1, chance=random.Random(1))
    slots.take("a", 0.0)
    again_s = refused(slots, "b", 0.0)
    refused(slots, "c", 0.1)
    slots.give_back("a", 1.0)
    refused(slots, "a", 0.2)
    refused(slots, "c", again_s)
    slots.take("b", again_s)


def test_a_place_is_given_up_for_a_device_that_does_not_come_back() -> None:
    slots = DownloadSlots(1, chance=random.Random(1))
    slots.take("a", 0.0)
    gone_at = refused(slots, "b", 0.0) + GRACE_S
    slots.give_back("a", 1.0)
    refused(slots, "c", gone_at - 1)
    slots.take("c", gone_at + 0.1)
    assert not slots.crowded


def test_one_device_never_has_more_than_its_share_and_takes_no_place_by_asking() -> None:
    slots = DownloadSlots(8, of_one=2, chance=random.Random(1))
    slots.take("a", 0.0)
    slots.take("a", 0.0)
    refused(slots, "a", 0.0)
    assert not slots.crowded
    slots.take("b", 0.0)
    slots.give_back("a", 1.0)
    slots.take("a", 1.0)


def test_waits_are_longer_the_more_wait_and_no_two_devices_come_back_together() -> None:
    slots = DownloadSlots(1, chance=random.Random(1))
    for second in range(20):  # each of its turns took 10 s
        slots.take("a", second)
        slots.give_back("a", 10.0)
    slots.take("a", 20.0)
    waits = [refused(slots, f"device-{number}", 20.0) for number in range(4)]
    assert waits[0] < waits[2], "the third waits for two turns more"
    assert len(set(waits)) == len(waits)
    assert max(waits) <= LONGEST_WAIT_S * 1.5


def test_everybody_has_a_turn_when_far_more_ask_than_there_are_slots() -> None:
    """Forty devices that want five turns of a second each, four slots: nobody ends long after the others."""
    chance = random.Random(7)
    slots, now, ended = DownloadSlots(4, chance=chance), 0.0, dict[str, float]()
    left = {f"device-{number:02}": 5 for number in range(40)}
    due = dict.fromkeys(left, 0.0)
    running: dict[str, float] = {}
    while len(ended) < 40:
        now += 0.05
        assert now < 300, "somebody starves"
        for device in [device for device, until in running.items() if until <= now]:
            del running[device]
            slots.give_back(device, 1.0)
            left[device] -= 1
            due[device] = now
            if not left[device]:
                ended[device] = now
        for device in [device for device in left if device not in running and left[device] and due[device] <= now]:
            try:
                slots.take(device, now)
            except TooMany as told:
                due[device] = now + told.again_s
            else:
                running[device] = now + 1.0
    times = sorted(ended.values())
    assert times[-1] <= 3 * times[20]


def test_a_reader_may_take_its_time_but_not_for_ever() -> None:
    reading = Reading(30.0)
    at_the_slowest = PART / SLOWEST_BYTES_PER_S
    for _ in range(100):
        assert reading.allowed_s(PART, crowded=False) == 30.0 + at_the_slowest
        reading.took(at_the_slowest, PART)
    assert reading.allowed_s(PART, crowded=True) == PATIENCE_IN_A_CROWD_S + at_the_slowest


def test_what_a_reader_is_too_slow_by_adds_up_and_is_made_good_by_going_faster() -> None:
    reading = Reading(30.0)
    reading.took(30.0, 1024)  # a drip
    assert reading.allowed_s(1024, crowded=False) < 1.0
    reading.took(0.0, PART)
    assert reading.allowed_s(1024, crowded=False) > 29.0
