"""When a device may have another certificate, and whose certificates end with it. Pure: rows and the time come in.

A device that loses each certificate that it is given, or that is held by somebody who only wants to fill the ledger,
gets four in seven days. One that does as it should needs two in thirty.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

from edgewright_controller.ledger.certificates import CertificateRow
from edgewright_controller.unix_time import unix_ms

MOST: Final = 4
WINDOW: Final = timedelta(days=7)


class TooOften(Exception):
    """This device got enough certificates of late; the text says when the next one may be had."""


class ReturnRefused(Exception):
    """This key may not come back by itself; the text says why."""


def check_pace(device: str, held: Sequence[CertificateRow], now: datetime) -> None:
    """Raise TooOften unless a device that holds `held`, the newest first, may have one more now."""
    recent = [row for row in held if row.issued_ms > unix_ms(now - WINDOW)]
    if len(recent) >= MOST:
        again = _time(recent[MOST - 1].issued_ms) + WINDOW
        raise TooOften(
            f"{device} got {len(recent)} certificates within {WINDOW.days} days, and keeps none; there is another one"
            f" from {again:%Y-%m-%d %H:%M} UTC on. See whether its disk keeps what is written"
        )


def check_return(newest: CertificateRow, key_sha256: str, now: datetime, within: timedelta) -> None:
    """Raise ReturnRefused unless the holder of this key may have a new certificate for it after its end.

    `newest`: of the device whose key it is or was. `within`: how long after the end; nothing: never.
    """
    device = newest.holder
    if newest.key_sha256 != key_sha256:
        raise ReturnRefused(f"this key of {device} was replaced by another one; enrol with a token")
    if newest.revoked_ms is not None:
        raise ReturnRefused(f"the certificate of {device} was revoked ({newest.revoked_why}); enrol with a token")
    ended = _time(newest.not_after_ms)
    if now < ended:
        raise ReturnRefused(
            f"the certificate of {device} is good until {ended:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} UTC"
            " here; see whether the device's clock is right"
        )
    if now - ended >= within:
        policy = f"within {within.days} days" if within else "never"
        raise ReturnRefused(
            f"the certificate of {device} ended on {ended:%Y-%m-%d}, and devices come back by themselves {policy}"
            " (return_within_days); enrol with a token"
        )


def replaced(held: Sequence[CertificateRow], key_sha256: str) -> list[CertificateRow]:
    """Which of a device's certificates end when this key enrols as it: all, if it is the key of another machine.

    A machine is known by any of its keys that was not revoked.
    """
    good = [row for row in held if row.revoked_ms is None]
    return [] if any(row.key_sha256 == key_sha256 for row in good) else good


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, timezone.utc)
