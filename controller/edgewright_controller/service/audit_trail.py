"""The audit log as operators read it: filtered on the way out, in portions, so that a long log needs no memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from edgewright_controller.ledger import Ledger, audit
from edgewright_controller.ledger.audit import AuditRow, Wanted

PORTION: Final = 500


async def entries(ledger: Ledger, wanted: Wanted) -> AsyncIterator[AuditRow]:
    """The entries in their order; what is entered meanwhile is not among them. Raises LedgerError."""
    last = await ledger.read(audit.last_number)
    above = await ledger.read(lambda c: audit.before_the_last(c, wanted)) if wanted.last else 0
    while above < last:
        rows = await ledger.read(lambda c, above=above: audit.found(c, wanted, above, last, PORTION))  # type: ignore[misc]  # mypy cannot type a lambda's default
        for row in rows:
            yield row
        if len(rows) < PORTION:
            return
        above = rows[-1].number
