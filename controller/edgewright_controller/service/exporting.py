"""One release's artifact for a device without a network, as `edgewright bundle export` writes it into a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from edgewright_contract import block_index, carried
from edgewright_contract.block_index import Block, BlockIndex, BlockIndexError
from edgewright_contract.v1 import operator_pb2
from edgewright_controller import log
from edgewright_controller.compile.store import ArtifactStore, StoreError
from edgewright_controller.ledger import Ledger, LedgerError, NotInLedger, artifacts, audit, releases
from edgewright_controller.ledger.releases import ReleaseRow
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.unix_time import unix_ms

PART_BYTES: Final = 256 << 10

_log = log.of(__name__)


@dataclass(frozen=True)
class _Found:
    """What is exported. `base` None: all of it."""

    row: ReleaseRow
    base: ReleaseRow | None


class Exports:
    """Sends releases to operators, for one fleet."""

    def __init__(self, fleet: str, ledger: Ledger, store: ArtifactStore, clock: Callable[[], datetime]) -> None:
        self._fleet, self._ledger, self._store, self._clock = fleet, ledger, store, clock

    async def export(self, release: str, since: str, *, by: str) -> AsyncIterator[operator_pb2.ExportPart]:
        """The parts, the head first. `release` and `since` are digests or their beginnings, `since` may be empty.

        Raises BadInput, ChangeRefused, also in the middle, when the store is damaged; LedgerError.
        """
        found = await self._ledger.write(lambda c: self._entered(c, release, since, by))
        row, base = found.row, found.base
        artifact = row.release.artifact
        self._store.sending(artifact)  # so that nothing collects it meanwhile
        if not await asyncio.to_thread(self._store.has, artifact):
            raise ChangeRefused(
                f"release {row.digest[:12]} was collected: its artifact {artifact[:12]} is not whole in the store any"
                " more; apply the manifest that made it, which builds it again"
            )
        bundle, data, index = await asyncio.to_thread(self._documents, row)
        held = await asyncio.to_thread(self._blocks_of, base) if base is not None else frozenset()
        blocks = [block for block in index.blocks if (block.sha256, block.size) not in held]
        yield operator_pb2.ExportPart(
            head=operator_pb2.ExportHead(
                fleet=self._fleet,
                release=row.digest,
                artifact=artifact,
                block_index=row.target.block_index,
                base=base.release.artifact if base is not None else "",
                bundle_bytes=len(bundle),
                index_bytes=len(data),
                blocks=len(index.blocks),
                content_bytes=sum(block.size for block in blocks),
            )
        )
        for one in (bundle, data, carried.bits_of((block.index for block in blocks), len(index.blocks))):
            for part in _parts(one):
                yield part
        async for part in self._contents(artifact, blocks):
            yield part

    async def _contents(self, artifact: str, blocks: Sequence[Block]) -> AsyncIterator[operator_pb2.ExportPart]:
        for block in blocks:
            self._store.sending(artifact)
            try:
                data = await asyncio.to_thread(self._store.read_block, artifact, block)
            except (StoreError, OSError) as error:
                raise ChangeRefused(f"artifact {artifact[:12]} cannot be read here: {error}") from error
            for part in _parts(data):
                yield part

    def _entered(self, connection: Connection, release: str, since: str, by: str) -> _Found:
        found = _Found(_named(connection, release), _named(connection, since) if since else None)
        row = found.row
        said = {"actor": f"operator {by}", "action": "release.export", "subject": self._fleet}
        detail = f"without what is in {found.base.digest[:12]}" if found.base else ""
        audit.append(connection, **said, release=row.digest, detail=detail, now_ms=unix_ms(self._clock()))
        _log.info("release exported", operator=by, release=row.digest)
        return found

    def _documents(self, row: ReleaseRow) -> tuple[bytes, bytes, BlockIndex]:
        """The bundle, the block index, and this read. Raises ChangeRefused."""
        artifact = row.release.artifact
        try:
            bundle = self._store.bundle(artifact)
            with self._store.open_object(row.target.block_index) as file:
                data = file.read(block_index.MAX_INDEX_BYTES + 1)
            return bundle.encode(), data, block_index.parse(data, bundle)
        except KeyError as error:
            raise ChangeRefused(f"artifact {artifact[:12]}: its block index is not here any more") from error
        except (StoreError, BlockIndexError, OSError) as error:
            raise ChangeRefused(f"artifact {artifact[:12]}: {error}; an apply builds it again") from error

    def _blocks_of(self, row: ReleaseRow) -> frozenset[tuple[bytes, int]]:
        """What a device that holds this release's artifact need not be brought."""
        *_, index = self._documents(row)
        return frozenset((block.sha256, block.size) for block in index.blocks)


def _named(connection: Connection, prefix: str) -> ReleaseRow:
    if not prefix:
        raise BadInput("name a release, by its digest or the beginning of it; `edgewright releases list` shows them")
    try:
        row = releases.find(connection, prefix)
    except NotInLedger as error:
        raise BadInput(str(error)) from error
    except LedgerError as error:  # several begin so
        raise BadInput(str(error)) from error
    if artifacts.get(connection, row.release.artifact) is None:
        raise BadInput(f"release {row.digest[:12]} has no artifact here")
    return row


def _parts(data: bytes) -> list[operator_pb2.ExportPart]:
    return [operator_pb2.ExportPart(data=data[at : at + PART_BYTES]) for at in range(0, len(data), PART_BYTES)]
