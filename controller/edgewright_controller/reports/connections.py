"""Who is connected to the broker, from births and deaths that may arrive late, twice, or in the wrong order.

A device numbers its connections. A death speaks of one connection only: when a later one is known, the death is
old news, for example the will of a connection that the broker found dead after the device had come back.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright_contract.v1 import telemetry_pb2


@dataclass(frozen=True)
class Connection:
    """The newest connection of a device that is known, by its spool epoch and number; `up` until its death."""

    spool_epoch: bytes
    session: int
    up: bool


def after(known: Connection | None, envelope: telemetry_pb2.Envelope) -> Connection | None:
    """What is known after this envelope; `known` itself when it says nothing new about connections."""
    told = Connection(envelope.spool_epoch, envelope.session, up=not envelope.HasField("death"))
    if known is None:
        return told
    if told.spool_epoch != known.spool_epoch:
        # A spool made anew counts from one again. Only a living device can tell; a death of another epoch is old.
        return told if told.up else known
    if told.session < known.session or (told.session == known.session and not known.up):
        return known
    return known if told == known else told
