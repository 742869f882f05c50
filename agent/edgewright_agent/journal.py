"""Which blocks of a download are safely on the disk. One bit a block, written only after the data was synced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgewright_agent.database import Database

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS download_blocks
    (bundle TEXT PRIMARY KEY, block_index TEXT NOT NULL, done BLOB NOT NULL) STRICT;
"""


class DownloadJournal:
    """The table `download_blocks` of agent.sqlite. Blocks of another block index count as not there."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises StateDamaged."""
        self._database = Database(path, _SCHEMA)

    def done(self, bundle: str, block_index: str) -> set[int]:
        """The numbers of the blocks that are there."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT done FROM download_blocks WHERE bundle = ? AND block_index = ?", (bundle, block_index)
            ).fetchone()
        bits = row[0] if row and isinstance(row[0], bytes) else b""  # no bytes: damaged, and fetched anew
        return {8 * place + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1}

    def record(self, bundle: str, block_index: str, done: Iterable[int]) -> None:
        """Exactly these blocks are there, and durable. Replaces what was known."""
        numbers = set(done)
        bits = bytearray((max(numbers, default=-1) + 8) // 8)
        for number in numbers:
            bits[number // 8] |= 1 << number % 8
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO download_blocks VALUES (?, ?, ?)", (bundle, block_index, bytes(bits))
            )

    def clear(self, bundle: str) -> None:
        """Forget the download of `bundle`."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM download_blocks WHERE bundle = ?", (bundle,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()
