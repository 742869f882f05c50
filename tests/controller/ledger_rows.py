"""Rows that tests of the ledger fill it with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from edgewright_contract.release import Release
from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.ledger import Ledger, artifacts, devices, releases

EPOCH, OTHER_EPOCH = b"e" * 16, b"f" * 16


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """The ledger in `folder`, closed at the end."""
    ledger = Ledger.open(folder / "ledger.sqlite")
    try:
        yield ledger
    finally:
        ledger.close()


def artifact(letter: str = "a") -> artifacts.ArtifactRow:
    """An artifact whose digest is 64 times `letter`."""
    return artifacts.ArtifactRow(letter * 64, 1 << 40, 300, "b" * 64, 900)


def release(letter: str = "a", model: str = "smollm2") -> Release:
    """A release of that artifact."""
    return Release(model, "jetson", "gguf", letter * 64, "cpu", 1 << 30, {"context": 1024})


def fill(connection: Connection, letters: str = "ab", names: str = "jetson-01 mac-01") -> list[str]:
    """Artifacts and releases by letter, and these devices; the releases' digests."""
    for name in names.split():
        devices.enrol(connection, name, "0a", 1)
    for letter in letters:
        artifacts.put(connection, artifact(letter))
    return [releases.put(connection, release(letter), 0, 2) for letter in letters]


def envelope(
    device: str, seq: int, *, epoch: bytes = EPOCH, dropped: int = 0, requests: int = 0
) -> telemetry_pb2.Envelope:
    """A telemetry envelope with this number."""
    body = telemetry_pb2.Telemetry(requests=requests or seq)
    return telemetry_pb2.Envelope(
        schema=1, device_id=device, spool_epoch=epoch, seq=seq, dropped_before=dropped, telemetry=body
    )
