"""How releases have done: on devices, and in rollouts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import rollout_document, tables
from edgewright_controller.ledger.among import among
from edgewright_controller.rollout import RolloutPhase, RolloutPolicy


@dataclass(frozen=True)
class GivenBy:
    """A rollout that gave a release to somebody. `about` is what its maker said of it."""

    rollout: str
    state: RolloutPhase
    about: dict[str, object]
    policy: RolloutPolicy


def succeeded_on(connection: Connection, digests: Iterable[str]) -> dict[str, int]:
    """On how many devices each of these has worked; those that worked nowhere are absent."""
    table = tables.desired
    worked = (table.c.outcome == int(agent_pb2.OUTCOME_SUCCEEDED), among(table.c.release, digests))
    statement = select(table.c.release, func.count(table.c.device.distinct()).label("devices")).where(*worked)
    return {row.release: row.devices for row in connection.execute(statement.group_by(table.c.release))}


def given_by(connection: Connection, digests: Iterable[str]) -> dict[str, list[GivenBy]]:
    """The rollouts that gave each of these to somebody, the newest first."""
    table, of = tables.rollout_devices, tables.rollouts
    joined = table.join(of, table.c.rollout == of.c.id)
    columns = (table.c.release, of.c.id, of.c.number, of.c.state, of.c.document)
    statement = select(*columns).distinct().select_from(joined).where(among(table.c.release, digests))
    found: dict[str, list[GivenBy]] = {}
    for row in connection.execute(statement.order_by(of.c.number.desc())):
        about, policy = dict(rollout_document.about(row.document)), rollout_document.policy(row.document)
        found.setdefault(row.release, []).append(GivenBy(row.id, RolloutPhase(row.state), about, policy))
    return found
