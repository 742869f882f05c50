"""Rollouts as operators see them: those that run, from memory, and those in the ledger."""

from __future__ import annotations

from sqlalchemy import Connection

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import rollouts
from edgewright_controller.rollout import RolloutState


def of_row(connection: Connection, row: rollouts.RolloutRow) -> operator_pb2.RolloutView:
    """One in the ledger."""
    return operator_pb2.RolloutView(
        rollout=row.id,
        state=row.state.value,
        reason=row.reason,
        wave=row.wave,
        waves=row.waves,
        devices_by_state={phase.value: count for phase, count in rollouts.counts(connection, row.id).items()},
        what=str(row.about.get("what", "")),
        by=row.created_by,
        created_unix_ms=int(row.created_at * 1000),
    )


def of_state(state: RolloutState) -> operator_pb2.RolloutView:
    """One that runs, or ran last."""
    return operator_pb2.RolloutView(
        rollout=state.spec.id,
        state=state.phase.value,
        reason=state.reason,
        wave=state.wave,
        waves=len(state.spec.waves),
        devices_by_state={phase.value: count for phase, count in state.counts.items() if count},
    )
