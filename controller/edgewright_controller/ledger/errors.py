"""What can be wrong with the ledger, by what a caller does next."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError


class LedgerError(Exception):
    """The ledger could not do it; nothing of it was stored. The text says why."""


def translated(error: SQLAlchemyError) -> LedgerError:
    """What the database says, as our own error: callers need not know which database it is."""
    return LedgerError(f"the ledger could not do it: {getattr(error, 'orig', None) or error}")


class LedgerDamaged(LedgerError):
    """The file is not a ledger that this version can use; an operator must act."""


class FleetMismatch(LedgerError):
    """The state folder belongs to another fleet."""


class LedgerBusy(LedgerError):
    """Too many writes wait already; try again later."""


class LedgerClosed(LedgerError):
    """The ledger is closed, or its writer has died; nothing more can be stored."""


class NotInLedger(LedgerError):
    """There is no such device, release, rollout or request."""


class GenerationTaken(LedgerError):
    """Somebody else has set this device's desired state in the meantime."""

    def __init__(self, device: str, wanted: int, current: int):
        super().__init__(f"{device}: generation {wanted} was to be set, but generation {current} stands already")
        self.device, self.wanted, self.current = device, wanted, current
