"""On which terms each device downloads, as the manifest says that was applied last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.delivery.terms import Terms
from edgewright_controller.ledger import Ledger, applied, labels
from edgewright_controller.manifest import ManifestError, parse

_NONE: Final = Terms()

_log = log.of(__name__)


class DeliveryTerms:
    """Each device's terms, in memory; `refresh` after whatever may have changed them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._terms: Mapping[str, Terms] = {}

    @classmethod
    async def open(cls, ledger: Ledger) -> DeliveryTerms:
        """As the ledger says. Raises LedgerError."""
        opened = cls(ledger)
        await opened.refresh()
        return opened

    def of(self, device: str) -> Terms:
        """The device's; without limits for one that the manifest does not have."""
        return self._terms.get(device, _NONE)

    async def refresh(self) -> None:
        """Take up what was applied last, with the labels that devices have now. Raises LedgerError."""
        last, given = await self._ledger.read(_read)
        if last is None:
            return
        try:
            self._terms = parse(last.text, file=last.file, labels=given).terms()
        except ManifestError as error:
            # It was good when it was applied; labels have changed since, or this version knows better.
            _log.error("limits and hours of downloads stay as they were; apply the manifest again", why=str(error))


def _read(connection: Connection) -> tuple[applied.AppliedRow | None, Mapping[str, Mapping[str, str]]]:
    return applied.last(connection), labels.every(connection)
