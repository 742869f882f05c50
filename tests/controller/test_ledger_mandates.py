"""A mandate's generation is its own: nothing else may ever use it, and a device that says it has it from there."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import GenerationTaken, artifacts, audit, devices, mandates, releases
from edgewright_controller.ledger.mandates import MandateRow
from edgewright_controller.service import standing
from tests.controller.ledger_rows import artifact, fill, opened, release

JETSON, MAC = "jetson-01", "mac-01"
give = partial(devices.set_desired, reason="why", now_ms=5)


def _row(number: int, generation: int, digest: str, *, device: str | None = JETSON) -> MandateRow:
    profile = None if device else "jetson"
    return MandateRow(number, device, profile, generation, digest, issued_ms=1, expires_ms=9, by="admin")


def test_the_next_generation_is_above_a_mandates(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: give(c, JETSON, one))
        ledger.write_now(lambda c: mandates.put(c, _row(1, 2, two)))
        with pytest.raises(GenerationTaken):
            ledger.write_now(lambda c: give(c, JETSON, one, generation=2))
        assert ledger.write_now(lambda c: give(c, JETSON, one)).generation == 3
        assert ledger.write_now(lambda c: give(c, MAC, one)).generation == 1


def test_a_profiles_mandate_keeps_its_generation_from_all_who_are_or_become_of_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, _ = ledger.write_now(fill)
        ledger.write_now(lambda c: artifacts.put(c, artifact("c")))
        other = ledger.write_now(lambda c: releases.put(c, replace(release("c"), profile="mac"), 0, 2))
        ledger.write_now(lambda c: give(c, JETSON, one))
        ledger.write_now(lambda c: give(c, MAC, other))
        assert ledger.read_now(mandates.highest) == 1
        ledger.write_now(lambda c: mandates.put(c, _row(1, 40, one, device=None)))
        assert ledger.read_now(mandates.highest) == 40
        # Of the profile, leaving it, and entering it.
        assert ledger.read_now(lambda c: devices.generation_of(c, JETSON)) == 40
        wanted = {JETSON: one, MAC: other}
        assert ledger.read_now(lambda c: devices.generations_of(c, wanted)) == {JETSON: 40, MAC: 1}
        assert ledger.read_now(lambda c: devices.generations_of(c, wanted | {MAC: one})) == {JETSON: 40, MAC: 40}
        assert ledger.write_now(lambda c: give(c, JETSON, other)).generation == 41
        assert ledger.write_now(lambda c: give(c, MAC, other)).generation == 2
        assert ledger.write_now(lambda c: give(c, MAC, one)).generation == 41


def _says(connection: Connection, generation: int, digest: str, sequence: int) -> bool:
    status = agent_pb2.DeviceStatus(
        generation=generation, release=digest, outcome=agent_pb2.OUTCOME_SUCCEEDED, sequence=sequence
    )
    return standing.record(connection, JETSON, agent_pb2.CheckInRequest(status=status), 77)


@pytest.mark.parametrize("device", [JETSON, None])
def test_what_only_a_mandate_gave_becomes_what_the_device_should_have(tmp_path: Path, device: str | None) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: give(c, JETSON, one))
        ledger.write_now(lambda c: mandates.put(c, _row(1, 4, two, device=device)))
        ledger.write_now(lambda c: _says(c, 1, one, 1))
        assert ledger.read_now(devices.desired)[JETSON].generation == 1
        ledger.write_now(lambda c: _says(c, 4, two, 2))
        now = ledger.read_now(devices.desired)[JETSON]
        assert (now.generation, now.release, now.reason) == (4, two, "mandate 1")
        assert now.outcome == agent_pb2.OUTCOME_SUCCEEDED
        (entry,) = ledger.read_now(lambda c: list(audit.entries(c)))
        assert (entry.actor, entry.action, entry.release) == ("device jetson-01", "mandate.take", two)
        ledger.write_now(lambda c: _says(c, 4, two, 3))
        assert len(ledger.read_now(lambda c: list(audit.entries(c)))) == 1
        assert ledger.write_now(lambda c: give(c, JETSON, one)).generation == 5


@pytest.mark.attack("device claims a generation that nobody gave")
@pytest.mark.parametrize("generation", [3, 5, (1 << 53) - 1, 1 << 53, (1 << 64) - 1])
def test_a_device_makes_nothing_of_a_generation_that_is_no_mandates(tmp_path: Path, generation: int) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: give(c, JETSON, one))
        ledger.write_now(lambda c: mandates.put(c, _row(1, 4, two)))
        ledger.write_now(lambda c: mandates.put(c, _row(2, 5, two, device=MAC)))
        before = ledger.read_now(devices.desired)
        taken = ledger.write_now(lambda c: devices.take_mandate(c, JETSON, generation, 5))
        assert (taken, ledger.read_now(devices.desired)) == (None, before)
        taken = ledger.write_now(lambda c: devices.take_mandate(c, JETSON, 4, 5))
        assert taken is not None
        assert taken.release == two


def test_a_mandate_that_was_overtaken_is_not_what_the_device_should_have(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: give(c, JETSON, one))
        ledger.write_now(lambda c: mandates.put(c, _row(1, 2, two)))
        assert ledger.write_now(lambda c: give(c, JETSON, one)).generation == 3
        ledger.write_now(lambda c: _says(c, 2, two, 1))
        assert ledger.read_now(devices.desired)[JETSON].generation == 3


def test_mandates_are_numbered_and_listed_the_newest_first(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        assert ledger.read_now(mandates.next_number) == 1
        rows = [_row(1, 2, one), _row(2, 3, two)]
        for row in rows:
            ledger.write_now(partial(mandates.put, row=row))
        assert ledger.read_now(mandates.next_number) == 3
        assert ledger.read_now(mandates.every) == rows[::-1]
