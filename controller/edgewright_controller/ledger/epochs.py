"""The release epochs that devices have activated. A device refuses, for good, what has a lower one of the same model.

What the ledger says of a release now counts, not what it said when the device took it: whoever raises the epoch of what
is served means to forbid what was before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import tables


@dataclass(frozen=True)
class Epochs:
    """The highest epochs. `of_devices` is by device and model; what a device has not activated is not in it."""

    of_devices: Mapping[tuple[str, str], int]

    def on(self, device: str, model: str) -> int:
        """The lowest epoch of this model that the device itself takes."""
        return self.of_devices.get((device, model), 0)

    def of_model(self, model: str) -> int:
        """The highest epoch of this model that runs, or ran, anywhere in the fleet."""
        return max((epoch for (_, of), epoch in self.of_devices.items() if of == model), default=0)


def activated(connection: Connection) -> Epochs:
    """Those of all devices, from the generations that succeeded."""
    desired, releases = tables.desired, tables.releases
    joined = desired.join(releases, desired.c.release == releases.c.digest)
    statement = (
        select(desired.c.device, releases.c.model, func.max(releases.c.release_epoch))
        .select_from(joined)
        .where(desired.c.outcome == int(agent_pb2.OUTCOME_SUCCEEDED))
        .group_by(desired.c.device, releases.c.model)
    )
    return Epochs({(device, model): epoch for device, model, epoch in connection.execute(statement)})
