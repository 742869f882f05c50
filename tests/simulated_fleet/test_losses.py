"""Each thing that may be lost is found when it is lost, and nothing is when all is well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger.audit import FIRST, AuditRow
from edgewright_controller.rollout import DevicePhase, RolloutPhase
from tests.simulated_fleet.evidence import Disk, Known, LedgerFound, Part, Reports, Rollout
from tests.simulated_fleet.losses import Expected, losses

NEW, OLD = "b" * 64, "a" * 64
DEVICE, EPOCH = "dev-0", b"e" * 16


def entry(number: int, previous: str, action: str, subject: str) -> AuditRow:
    row = AuditRow(number, 1, "operator admin", action, subject, "", "", previous, "")
    return replace(row, hash=row.expected_hash)


def saved(generation: int, outcome: str, active: str) -> Mapping[str, Any]:
    return {"what": "saved", "generation": generation, "outcome": outcome, "active": active, "sequence": generation}


def disk(**changes: Any) -> Disk:
    """Of a device that has the new release, and has said so."""
    state = {"generation": 2, "step": "idle", "outcome": "succeeded", "active_release": NEW, "reason": ""}
    trail = [saved(1, "succeeded", OLD), saved(2, "succeeded", NEW), {"what": "told", "sequence": 2, "generation": 2}]
    return Disk(state | changes, trail)


def known(**changes: Any) -> Known:
    """The same device by the ledger."""
    said = agent_pb2.DeviceStatus(generation=2, step=agent_pb2.STEP_IDLE, active_release=NEW, sequence=2)
    said.MergeFrom(agent_pb2.DeviceStatus(**changes))
    return Known(NEW, 2, said, said.sequence)


PART = Part(DevicePhase.SUCCEEDED, 2, NEW, OLD, detached=False, reason="")
ROLLOUT = Rollout("rollout-1", 1, RolloutPhase.SUCCEEDED, ended=True, reason="", parts={DEVICE: PART})
BEGUN = entry(1, FIRST, "rollout.begin", "rollout-1")
PAUSED = entry(2, BEGUN.hash, "rollout.paused", "rollout-1")
SOUND = LedgerFound([ROLLOUT], {DEVICE: known()}, {(DEVICE, EPOCH): Reports(7, 7, 0)}, [BEGUN, PAUSED])
EXPECTED = Expected(commands=(("rollout.paused", "rollout-1"),), spooled={DEVICE: 7})


def with_part(**changes: Any) -> LedgerFound:
    return replace(SOUND, rollouts=[replace(ROLLOUT, parts={DEVICE: replace(PART, **changes)})])


def test_nothing_is_lost_when_all_is_well() -> None:
    assert losses(SOUND, {DEVICE: disk()}, EXPECTED) == []


@pytest.mark.parametrize(
    ("ledger", "words"),
    [
        (replace(SOUND, rollouts=[replace(ROLLOUT, phase=RolloutPhase.RUNNING, ended=False)]), "has not ended"),
        (with_part(phase=DevicePhase.UPDATING), "still updating"),
        (with_part(generation=3), "of which it knows nothing"),
        (with_part(phase=DevicePhase.REVERTED), "which rollout-1 took back"),
        (replace(SOUND, devices={}), "the ledger does not know it"),
        (replace(SOUND, devices={DEVICE: replace(known(), release=OLD)}), "does not run what it should"),
        (replace(SOUND, devices={DEVICE: replace(known(), generation=3)}), "not at rest with what it should have"),
        (replace(SOUND, devices={DEVICE: replace(known(), generation=1)}), "was given no more than 1"),
        (replace(SOUND, devices={DEVICE: known(sequence=1)}), "the ledger has 1"),
        (replace(SOUND, devices={DEVICE: known(active_release=OLD)}), "not at rest"),
        (replace(SOUND, reports={(DEVICE, EPOCH): Reports(7, 6, 0)}), "6 reports up to number 7"),
        (replace(SOUND, reports={(DEVICE, EPOCH): Reports(6, 6, 0)}), "all up to 7 should be"),
        (replace(SOUND, reports={(DEVICE, EPOCH): Reports(7, 7, 2)}), "2 reports were dropped"),
        (replace(SOUND, reports=dict.fromkeys([(DEVICE, EPOCH), (DEVICE, b"f" * 16)], Reports(7, 7, 0))), "2 spools"),
        (replace(SOUND, reports={}), "no report of it is stored"),
        (replace(SOUND, audit=[BEGUN]), "rollout.paused was done"),
        (replace(SOUND, audit=[replace(BEGUN, actor="nobody"), PAUSED]), "broken at entry 1"),
        (replace(SOUND, audit=[PAUSED]), "broken at entry 1"),
    ],
)
def test_what_the_ledger_lost_is_found(ledger: LedgerFound, words: str) -> None:
    assert words in "; ".join(losses(ledger, {DEVICE: disk()}, EXPECTED))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (disk(step="probing"), "not at rest"),
        (disk(generation=1), "not at rest"),
        (disk(active_release=OLD), "does not run what it should"),
        (replace(disk(), trail=[saved(2, "succeeded", NEW), saved(1, "succeeded", OLD)]), "did not only rise"),
    ],
)
def test_what_a_device_lost_is_found(found: Disk, words: str) -> None:
    assert words in "; ".join(losses(SOUND, {DEVICE: found}, EXPECTED))


def test_a_device_that_was_told_to_fail_may_keep_what_it_had() -> None:
    failed = replace(with_part(phase=DevicePhase.FAILED), devices={DEVICE: known(active_release=OLD)})
    kept = disk(active_release=OLD, outcome="failed")
    assert losses(failed, {DEVICE: kept}, replace(EXPECTED, excused=frozenset({DEVICE}))) == []
    assert "does not run what it should" in "; ".join(losses(failed, {DEVICE: kept}, EXPECTED))
