"""Revocations on their way to the broker: the list in its time, and a restart for many."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from edgewright_contract import names
from edgewright_controller.ledger import Ledger, certificates
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from edgewright_controller.pki import Authority
from edgewright_controller.pki_files import crl_left
from edgewright_controller.service.revocations import Revocations
from edgewright_controller.service.shutting_out import ManagedBroker, ShuttingOut
from tests.controller.broker_room import BrokerRoom, until
from tests.controller.ledger_rows import opened

NOW = datetime.now(timezone.utc).replace(microsecond=0)  # a list counts in seconds
DAY = timedelta(days=1)


class Counted:
    """When the broker was started again, and how often it read its list."""

    def __init__(self) -> None:
        self.restarts: list[float] = []
        self.reloads = 0

    async def restart(self) -> None:
        self.restarts.append(time.monotonic())

    def reload(self) -> None:
        self.reloads += 1


@asynccontextmanager
async def shutting_out(
    ledger: Ledger, authority: Authority, broker: ManagedBroker, now: list[datetime] | None = None, **paces: float
) -> AsyncIterator[Revocations]:
    def clock() -> datetime:
        return now[0] if now else datetime.now(timezone.utc)

    revocations = await Revocations.open(ledger, clock)
    running = ShuttingOut(authority, revocations, broker, clock, **paces)
    running.start()
    yield revocations
    await running.close()


def listed(authority: Authority) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl(authority.crl_path.read_bytes())}


async def test_revocations_of_one_moment_share_a_restart_and_the_next_waits_its_turn(tmp_path: Path) -> None:
    authority, broker = Authority.open(tmp_path / "pki", "plant-7", NOW), Counted()
    ends_ms = int((NOW + 30 * DAY).timestamp() * 1000)
    with opened(tmp_path) as ledger:
        for number in range(1, 5):
            row = CertificateRow(f"{number:x}", DEVICE, f"d-{number}", "k", 0, ends_ms)
            await ledger.write(lambda c, row=row: certificates.put(c, row))  # type: ignore[misc]
        async with shutting_out(ledger, authority, broker, gather_s=1.0, spacing_s=2.0) as revocations:
            together = (revocations.revoke(DEVICE, f"d-{n}", by="operator admin", why="") for n in (1, 2, 3))
            await asyncio.gather(*together)
            await until(lambda: len(broker.restarts) == 1, "the restart")
            assert listed(authority) == {1, 2, 3}
            await revocations.revoke(DEVICE, "d-4", by="operator admin", why="")
            await until(lambda: len(broker.restarts) == 2, "the second restart")
            assert broker.restarts[1] - broker.restarts[0] >= 1.9
            assert listed(authority) == {1, 2, 3, 4}


@pytest.mark.attack("list of revoked certificates that has ended, or is damaged")
@pytest.mark.parametrize(
    ("written", "why"),
    [(NOW - 8 * DAY, "it has ended"), (NOW + DAY, "the clock was set back"), (None, "it is damaged")],
)
async def test_a_list_that_lets_nobody_in_is_written_anew_and_read_by_the_broker(
    tmp_path: Path, written: datetime | None, why: str
) -> None:
    """The honest device is locked out, as the facts say, until the list is renewed: without a restart."""
    room = BrokerRoom(tmp_path / "room")
    leaf = room.device("mac-01")
    room.authority.write_crl({}, written or NOW)
    room.files = replace(room.files, crl=room.authority.crl_path)
    room.broker = room.another_broker()
    await room.broker.start()
    if written is None:
        room.authority.crl_path.write_bytes(b"rubbish")
    try:
        assert crl_left(room.authority.crl_path, datetime.now(timezone.utc)) == timedelta(), why
        if written is not None:
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(handshake, room, "mac-01")
        before = room.broker.pid
        with opened(tmp_path) as ledger:
            async with shutting_out(ledger, room.authority, room.broker, look_s=0.1):
                await until(
                    lambda: crl_left(room.authority.crl_path, datetime.now(timezone.utc)) > 6 * DAY, "another list"
                )
                await room.connected(room.client(leaf, "mac-01", (names.hint_topic("mac-01"),)))
        assert room.broker.pid == before
    finally:
        await room.close()


def handshake(room: BrokerRoom, device: str) -> None:
    """Connect as this device; raises ConnectionError when the broker does not take its certificate."""
    context = ssl.create_default_context(cafile=str(room.authority.ca_path))
    context.load_cert_chain(room.folder / f"{device}.pem", room.folder / f"{device}.key")
    host, _, port = room.broker.address.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                tls.settimeout(1)
                if tls.recv(1) == b"":
                    raise ConnectionError("closed")
        except ssl.SSLError as error:
            raise ConnectionError(str(error)) from error
        except TimeoutError:
            return  # it waits for what the client has to say


async def test_a_list_that_cannot_be_renewed_is_an_alarm_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority, broker = Authority.open(tmp_path / "pki", "plant-7", NOW), Counted()
    authority.write_crl({}, NOW)
    now = [NOW + 2 * DAY]
    written: list[datetime] = []

    def full(_revoked: object, at: datetime) -> Path:
        written.append(at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(authority, "write_crl", full)
    with opened(tmp_path) as ledger, caplog.at_level(logging.WARNING):
        async with shutting_out(ledger, authority, broker, now, look_s=0.02):
            await until(lambda: len(written) > 3, "some tries")
            records = [record for record in caplog.records if "revoked certificates" in str(record.msg)]
            assert [record.levelname for record in records] == ["WARNING"], "once, and not at each try"
            now[0] = NOW + 5 * DAY
            await until(lambda: any(record.levelname == "ERROR" for record in caplog.records), "the alarm")
            (alarm,) = [record for record in caplog.records if record.levelname == "ERROR"]
            assert "when it has ended, the broker lets no device in: make room on the disk" in str(alarm.msg)
            assert "'hours_left': 48" in str(alarm.msg)
            monkeypatch.undo()
            await until(lambda: broker.reloads == 1, "the list to be renewed")
    assert crl_left(authority.crl_path, now[0]) == 7 * DAY
