"""Releases as operators see them: what each is, who has it, and whether it can still be given."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Final

from sqlalchemy import Connection

from edgewright_contract import canonical
from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import Ledger, LedgerError, NotInLedger, artifacts, devices, releases
from edgewright_controller.ledger.releases import ReleaseRow
from edgewright_controller.manifest.errors import suggestion
from edgewright_controller.service import standing
from edgewright_controller.service.change import BadInput
from edgewright_controller.service.documents import Documents, NotKept, document

USUAL: Final = 100
MOST: Final = 1000


class Releases:
    """Answers `releases`."""

    def __init__(self, ledger: Ledger, store: Documents) -> None:
        self._ledger, self._store = ledger, store

    async def listed(self, model: str, limit: int) -> operator_pb2.ListReleasesResponse:
        """The newest first, of `model` or of all. Raises BadInput for a model that has none, LedgerError."""

        def act(connection: Connection) -> list[operator_pb2.ReleaseView]:
            rows = releases.every(connection, model=model, limit=min(limit or USUAL, MOST))
            if model and not rows:
                known = releases.models(connection)
                raise BadInput(f"there is no release of model {model!r}{suggestion(model, known)}")
            in_use = _InUse(connection)
            return [self._view(connection, row, in_use) for row in rows]

        return operator_pb2.ListReleasesResponse(releases=await self._ledger.read(act))

    async def shown(self, prefix: str) -> operator_pb2.ReleaseView:
        """One release with its document and, where it is known, its recipe. Raises BadInput, LedgerError."""

        def act(connection: Connection) -> operator_pb2.ReleaseView:
            row = _found(connection, prefix)
            view = self._view(connection, row, _InUse(connection))
            view.document = canonical.encode(row.release.to_json()).decode("ascii")
            view.recipe = artifacts.recipe(connection, row.release.artifact) or ""
            return view

        view = await self._ledger.read(act)
        if view.provenance:
            with contextlib.suppress(NotKept):
                view.statement = (await asyncio.to_thread(document, self._store, view.provenance)).decode("utf-8")
        return view

    def _view(self, connection: Connection, row: ReleaseRow, in_use: _InUse) -> operator_pb2.ReleaseView:
        release = row.release
        artifact = artifacts.get(connection, release.artifact)
        rollback = in_use.rollbacks.get(row.digest)
        return operator_pb2.ReleaseView(
            release=row.digest,
            model=release.model,
            profile=release.profile,
            runtime=release.runtime,
            artifact=release.artifact,
            artifact_bytes=artifact.size if artifact else 0,
            release_epoch=row.target.release_epoch,
            created_unix_ms=row.created_ms,
            rolled_back_by=rollback.by if rollback else "",
            rolled_back_unix_ms=rollback.at_ms if rollback else 0,
            devices_active=in_use.active[row.digest],
            devices_desired=in_use.desired[row.digest],
            collected=not self._store.has(release.artifact),
            provenance=row.target.provenance,
        )


class _InUse:
    """How many devices serve and should serve each release, and what was rolled back."""

    def __init__(self, connection: Connection) -> None:
        rows = [row for row in devices.every(connection) if row.decommissioned_ms is None]
        here = {row.id for row in rows}
        said = (standing.said(row) for row in rows)
        self.active = Counter(status.active_release for status in said if status is not None)
        wanted = devices.desired(connection).values()
        self.desired = Counter(row.release for row in wanted if row.release and row.device in here)
        self.rollbacks = releases.rollbacks(connection)


def _found(connection: Connection, prefix: str) -> ReleaseRow:
    if not prefix:
        raise BadInput("name a release, by its digest or the beginning of it; `edgewright releases list` shows them")
    try:
        return releases.find(connection, prefix)
    except NotInLedger as error:
        raise BadInput(str(error)) from error
    except LedgerError as error:  # several begin so
        raise BadInput(str(error)) from error
