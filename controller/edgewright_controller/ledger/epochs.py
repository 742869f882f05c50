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
    """The highest epochs. `of_devices` is by device and model; what a device has not activated is not in it.
    `of_models` is the highest of each model that runs, or ran, anywhere in the fleet."""

    of_devices: Mapping[tuple[str, str], int]
    of_models: Mapping[str, int]

    def on(self, device: str, model: str) -> int:
        """The lowest epoch of this model that the device itself takes."""
        return self.of_devices.get((device, model), 0)

    def of_model(self, model: str) -> int:
        """The highest epoch of this model that runs, or ran, anywhere in the fleet."""
        return self.of_models.get(model, 0)


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
    of_devices: dict[tuple[str, str], int] = {}
    of_models: dict[str, int] = {}
    for device, model, epoch in connection.execute(statement):
        of_devices[device, model] = epoch
        of_models[model] = max(epoch, of_models.get(model, 0))
    return Epochs(of_devices, of_models)
