"""The ledger: what the controller knows and must not forget, in one SQLite file.

`Ledger` opens it and runs functions in a write or a read. The functions stand in one file for each concern
(`devices`, `artifacts`, `releases`, `rollouts`, …); each takes a Connection first, and rows are frozen dataclasses:

    await ledger.write(lambda c: releases.put(c, release, epoch, now_ms))
    row = await ledger.read(lambda c: devices.get(c, "jetson-01"))
"""

from edgewright_controller.ledger.errors import (
    FleetMismatch,
    GenerationTaken,
    LedgerBusy,
    LedgerClosed,
    LedgerDamaged,
    LedgerError,
    NotInLedger,
)
from edgewright_controller.ledger.ledger import Ledger

__all__ = [
    "FleetMismatch",
    "GenerationTaken",
    "Ledger",
    "LedgerBusy",
    "LedgerClosed",
    "LedgerDamaged",
    "LedgerError",
    "NotInLedger",
]
