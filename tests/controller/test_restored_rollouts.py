"""A rollout that ran when a backup was made does not go on by itself once the backup is restored."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.backup import making, restoring
from edgewright_controller.ledger import Ledger, assignments, audit, cordons, devices, labels, rollouts
from edgewright_controller.ledger.cordons import CordonRow
from tests.controller.service_rig import Controller, controller, manifest, result

PASSPHRASE = "correct horse battery"


async def _states(fleet: Controller) -> dict[str, str]:
    answer = await fleet.operator.ListRollouts(operator_pb2.ListRolloutsRequest(), timeout=10)
    return {view.rollout: view.state for view in answer.rollouts}


@pytest.mark.attack("a rollout that was stopped goes on after a restore")
async def test_what_was_stopped_since_the_backup_stays_stopped(tmp_path: Path) -> None:
    text = manifest(tmp_path, ["jetson-01", "jetson-02"], first_wave="1", deadline="60s")
    async with controller(tmp_path / "state") as fleet:
        first, second = await fleet.enrol("jetson-01"), await fleet.enrol("jetson-02")
        asked = operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
        call = fleet.operator.Apply(asked)
        async for event in call:
            if event.HasField("rollout"):
                break
        assert await _states(fleet) == {"rollout-1": "running"}
        now = datetime.now(timezone.utc)
        await asyncio.to_thread(making.make, tmp_path / "state", tmp_path / "b", PASSPHRASE, now, reports=True)
        action = operator_pb2.ControlRolloutRequest.ACTION_ABORT_KEEP
        control = operator_pb2.ControlRolloutRequest(rollout="rollout-1", action=action)
        await fleet.operator.ControlRollout(control, timeout=10)
        call.cancel()
        await first.channel.close()
        await second.channel.close()
    done = restoring.restore(tmp_path / "b", tmp_path / "again", PASSPHRASE, datetime.now(timezone.utc))
    assert done.ended == ("rollout-1",)
    async with controller(tmp_path / "again") as fleet:
        assert await _states(fleet) == {"rollout-1": "superseded"}
        third = await fleet.enrol("jetson-02")
        async with third.living():
            await asyncio.sleep(0.5)  # several of its check-ins
            assert await _states(fleet) == {"rollout-1": "superseded"}
            assert not (await fleet.status())["jetson-02"].desired_release
    ledger = Ledger.open(tmp_path / "again" / "ledger.sqlite")
    entries = ledger.read_now(lambda c: [row.action for row in audit.entries(c)])
    ledger.close()
    assert entries.count("rollout.superseded") == 1


async def test_a_backup_carries_cordons_labels_and_what_newcomers_get(tmp_path: Path) -> None:
    state, text = tmp_path / "state", manifest(tmp_path, ["jetson-01", "jetson-02"])
    async with controller(state) as fleet:
        first = await fleet.enrol("jetson-01")
        applying = asyncio.create_task(fleet.apply(text, tmp_path))
        async with first.living():
            assert result(await applying).succeeded
        await fleet.enrol("jetson-03")
    ledger = Ledger.open(state / "ledger.sqlite")
    row = CordonRow("jetson-01", "alice", 1, "its fan")
    ledger.write_now(lambda c: cordons.put(c, row))
    ledger.write_now(lambda c: labels.put(c, "jetson-01", {"ring": "early"}, by="alice", now_ms=1))
    ledger.write_now(lambda c: devices.decommission(c, "jetson-03", 2))
    given = ledger.read_now(assignments.every)
    before = ledger.read_now(lambda c: rollouts.load(c, "rollout-1")).spec
    ledger.close()
    assert given.keys() == {"jetson-01", "jetson-02"}
    making.make(state, tmp_path / "b", PASSPHRASE, datetime.now(timezone.utc), reports=False)
    restoring.restore(tmp_path / "b", tmp_path / "again", PASSPHRASE, datetime.now(timezone.utc))
    ledger = Ledger.open(tmp_path / "again" / "ledger.sqlite")
    assert ledger.read_now(cordons.every) == {"jetson-01": row}
    assert ledger.read_now(labels.every) == {"jetson-01": {"ring": "early"}}
    assert ledger.read_now(lambda c: devices.get(c, "jetson-03")).decommissioned_ms == 2
    assert ledger.read_now(assignments.every) == given
    assert ledger.read_now(lambda c: rollouts.load(c, "rollout-1")).spec == before
    ledger.close()
