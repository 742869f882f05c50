"""When a device may have another certificate: values in, a decision out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from edgewright_controller.certificate_policy import (
    MOST,
    WINDOW,
    ReturnRefused,
    TooOften,
    check_pace,
    check_return,
    replaced,
)
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from tests.controller.pki_requests import NOW

WITHIN = timedelta(days=90)
KEY, OTHER = "a" * 64, "b" * 64
ENDED = CertificateRow("a1", DEVICE, "jetson-01", KEY, 0, int(NOW.timestamp() * 1000))


def issued(*ago: timedelta) -> list[CertificateRow]:
    return [replace(ENDED, serial=f"{ago}", issued_ms=int((NOW - each).timestamp() * 1000)) for each in ago]


def test_a_device_that_renews_at_half_life_is_never_held_up() -> None:
    check_pace("jetson-01", issued(*(timedelta(days=15) * number for number in range(20))), NOW)


def test_a_few_lost_certificates_are_given_again_and_then_the_device_waits() -> None:
    held = issued(*(timedelta(minutes=number) for number in range(MOST)))
    check_pace("jetson-01", held[1:], NOW)
    with pytest.raises(TooOften, match=r"jetson-01 got 4 certificates within 7 days.* from 2026-03-08 11:57 UTC on"):
        check_pace("jetson-01", held, NOW)
    check_pace("jetson-01", held, NOW + WINDOW)


def test_a_device_comes_back_until_the_policy_ends() -> None:
    check_return(ENDED, KEY, NOW, WITHIN)
    check_return(ENDED, KEY, NOW + timedelta(days=89, hours=23), WITHIN)
    with pytest.raises(ReturnRefused, match=r"ended on 2026-03-01, .* within 90 days \(return_within_days\)"):
        check_return(ENDED, KEY, NOW + WITHIN, WITHIN)
    with pytest.raises(ReturnRefused, match="by themselves never"):
        check_return(ENDED, KEY, NOW, timedelta(0))


def test_what_is_still_good_does_not_come_back() -> None:
    with pytest.raises(ReturnRefused, match=r"is good until .* see whether the device's clock is right"):
        check_return(ENDED, KEY, NOW - timedelta(seconds=1), WITHIN)


def test_neither_the_revoked_nor_the_replaced_come_back() -> None:
    with pytest.raises(ReturnRefused, match=r"was revoked \(stolen\)"):
        check_return(replace(ENDED, revoked_ms=1, revoked_why="stolen"), KEY, NOW, WITHIN)
    with pytest.raises(ReturnRefused, match="replaced by another one"):
        check_return(ENDED, OTHER, NOW, WITHIN)


def test_a_machine_is_known_by_any_of_its_keys_that_is_not_revoked() -> None:
    older = replace(ENDED, serial="a0", key_sha256=OTHER)
    assert replaced([ENDED, older], KEY) == []
    assert replaced([ENDED, older], OTHER) == []
    assert replaced([ENDED, older], "c" * 64) == [ENDED, older]
    assert replaced([ENDED, replace(older, revoked_ms=1)], OTHER) == [ENDED]
    assert replaced([], KEY) == []
