"""The labels of devices as changes see them: those of the manifest that was applied last over those that were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tomli
from sqlalchemy import Connection

from edgewright_controller.ledger import applied, labels


class KnownLabels:
    """Reads a manifest once, however often it is asked about; it may have thousands of devices."""

    def __init__(self) -> None:
        self._number = 0
        self._manifests: Mapping[str, Mapping[str, str]] = {}

    def of(self, connection: Connection, devices: Iterable[str]) -> dict[str, dict[str, str]]:
        """Device → name → value, of those of `devices` that have any."""
        names = list(devices)
        given, said = labels.every(connection, names), self._of_manifest(connection)
        both = {device: {**given.get(device, {}), **said.get(device, {})} for device in names}
        return {device: has for device, has in both.items() if has}

    def _of_manifest(self, connection: Connection) -> Mapping[str, Mapping[str, str]]:
        number = applied.last_number(connection)
        if number != self._number and (row := applied.last(connection)) is not None:
            # It was checked when it was applied.
            tables = tomli.loads(row.text).get("devices", {})
            self._manifests = {device: table["labels"] for device, table in tables.items() if "labels" in table}
            self._number = row.number
        return self._manifests
