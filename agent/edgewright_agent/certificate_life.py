"""When a device's certificate is renewed, and what to say when it or the clock is wrong. Pure: time is an argument.

The moment lies at half of the certificate's life, a tenth of the life earlier or later, by the device's id: always the
same for one device, and spread over days for a fleet that was enrolled in one afternoon.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import Final

JITTER: Final = 0.1
# Certificates of the first versions were good for a year, because nobody renewed them. They are exchanged at once.
LONGEST: Final = timedelta(days=60)
# Two honest clocks may differ by so much.
SKEW: Final = timedelta(minutes=10)


class What(Enum):
    """What is to be done about the certificate."""

    WAIT = "wait"
    RENEW = "renew"
    RETURN = "return"  # it has ended: only the enrolment still listens


@dataclass(frozen=True)
class Life:
    """A certificate's life, in UTC."""

    not_before: datetime
    not_after: datetime


def renews_at(device: str, life: Life) -> datetime:
    """When the certificate is to be renewed."""
    length = life.not_after - life.not_before
    if length > LONGEST:
        return life.not_before
    spread = int.from_bytes(sha256(device.encode()).digest()[:8], "big") / 2**64
    return life.not_before + length * (0.5 + JITTER * (2 * spread - 1))


def due(device: str, life: Life, now: datetime) -> What:
    """What is to be done at `now`."""
    if now >= life.not_after:
        return What.RETURN
    return What.RENEW if now >= renews_at(device, life) else What.WAIT


def trouble(life: Life, floor: datetime, now: datetime) -> str:
    """Why the controller may not be reachable, for the end of a message; empty when neither is wrong.

    `floor`: a time that has surely passed.
    """
    floor = max(floor, life.not_before)
    if now < floor - SKEW:
        return (
            f"this device's clock says {now:%Y-%m-%d %H:%M} UTC, but it is {floor:%Y-%m-%d %H:%M} at least: set the"
            " clock, for example by NTP. What serves goes on serving"
        )
    if now >= life.not_after:
        return (
            f"this device's certificate ended on {life.not_after:%Y-%m-%d}, if its clock ({now:%Y-%m-%d}) is right: it"
            " asks for a new one by itself; or enrol it again, with the token that `edgewright enroll create` prints"
        )
    return ""
