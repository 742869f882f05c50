"""Models as operators see them: what was built of each, how it was measured, what was refused, how it was made."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import (
    Ledger,
    LedgerError,
    NotInLedger,
    artifacts,
    build_cards,
    model_builds,
    releases,
)
from edgewright_controller.ledger.build_cards import BuildCardRow
from edgewright_controller.ledger.model_builds import ModelBuildRow
from edgewright_controller.manifest.errors import suggestion
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.service.documents import Documents, NotKept, document

_LEAST_PREFIX: Final = 4


class Models:
    """Answers `models`."""

    def __init__(self, ledger: Ledger, store: Documents) -> None:
        self._ledger, self._store = ledger, store

    async def listed(self) -> operator_pb2.ListModelsResponse:
        """Every model of which there is a build. Raises LedgerError."""

        def act(connection: Connection) -> list[operator_pb2.ModelView]:
            return [_summary(name, self._builds(connection, name)) for name in model_builds.models(connection)]

        return operator_pb2.ListModelsResponse(models=await self._ledger.read(act))

    async def shown(self, model: str) -> operator_pb2.ShowModelResponse:
        """All builds of one model. Raises BadInput for one that has none, LedgerError."""

        def act(connection: Connection) -> list[operator_pb2.BuildView]:
            known = model_builds.models(connection)
            if model not in known:
                raise BadInput(f"there is no build of model {model!r}{suggestion(model, known)}")
            return self._builds(connection, model)

        return operator_pb2.ShowModelResponse(model=model, builds=await self._ledger.read(act))

    async def provenance(self, prefix: str) -> operator_pb2.FetchProvenanceResponse:
        """The statement of one artifact, or of a release's. Raises BadInput, ChangeRefused, LedgerError."""

        def act(connection: Connection) -> tuple[str, str]:
            artifact = _found(connection, prefix)
            return artifact, build_cards.provenance(connection, artifact)

        artifact, sha256 = await self._ledger.read(act)
        if not sha256:
            why = "it was shipped prebuilt, or built by an older controller"
            raise ChangeRefused(f"artifact {artifact[:12]} has no provenance: {why}")
        try:
            statement = await asyncio.to_thread(document, self._store, sha256)
        except NotKept as error:
            raise ChangeRefused(f"artifact {artifact[:12]}: its statement {error}") from error
        return operator_pb2.FetchProvenanceResponse(artifact=artifact, sha256=sha256, statement=statement)

    def _builds(self, connection: Connection, model: str) -> list[operator_pb2.BuildView]:
        """The smallest first, then those that were refused. What was asked for and never built is left out."""
        rows = model_builds.of_model(connection, model)
        keys = [row.build_key for row in rows]
        made, cards = artifacts.builds(connection, keys), build_cards.every(connection, keys)
        released = Counter(row.release.artifact for row in releases.every(connection, model=model))
        views = []
        for row in rows:
            build, card = made.get(row.build_key), cards.get(row.build_key)
            if build is None and card is None:
                continue
            view = _view(row, card)
            if build is not None and not row.refused:
                view.artifact, view.artifact_bytes, view.built_unix_ms = build.bundle, build.size, build.made_ms
                view.collected = not self._store.has(build.bundle)
                view.releases = released[build.bundle]
            views.append(view)
        return sorted(views, key=lambda view: (bool(view.refused), view.artifact_bytes, view.build_key))


def _view(row: ModelBuildRow, card: BuildCardRow | None) -> operator_pb2.BuildView:
    return operator_pb2.BuildView(
        build_key=row.build_key,
        artifact=card.artifact if card else "",
        runtime=row.runtime,
        quantization=row.quantization,
        recipe=row.recipe,
        refused=row.refused,
        card=(card.card or "") if card else "",
        measures=card.measures if card else "",
        provenance=(card.provenance or "") if card else "",
        built_unix_ms=card.made_ms if card else row.at_ms,
    )


def _summary(model: str, views: Iterable[operator_pb2.BuildView]) -> operator_pb2.ModelView:
    passed = [view for view in views if not view.refused]
    refused = [view for view in views if view.refused]
    return operator_pb2.ModelView(
        model=model,
        builds=len(passed),
        refused=len(refused),
        releases=sum(view.releases for view in passed),
        built_unix_ms=max((view.built_unix_ms for view in (*passed, *refused)), default=0),
        smallest_bytes=min((view.artifact_bytes for view in passed), default=0),
    )


def _found(connection: Connection, prefix: str) -> str:
    """The artifact that is meant."""
    if len(prefix) < _LEAST_PREFIX:
        raise BadInput(
            f"name an artifact or a release by at least {_LEAST_PREFIX} signs of its digest;"
            " `edgewright models show` and `edgewright releases list` show them"
        )
    bundles = set(artifacts.beginning(connection, prefix))
    try:
        bundles.add(releases.find(connection, prefix).release.artifact)
    except NotInLedger:
        pass  # then an artifact is meant
    except LedgerError as error:  # several begin so
        raise BadInput(str(error)) from error
    if not bundles:
        raise BadInput(f"there is no artifact and no release {prefix!r}; `edgewright models show` names artifacts")
    if len(bundles) > 1:
        raise BadInput(f"{prefix!r} begins several digests; give more of it")
    (bundle,) = bundles
    return bundle
