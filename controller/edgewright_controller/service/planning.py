"""From the text that an operator sends to a plan: read, looked at what there is, planned."""

from __future__ import annotations

from pathlib import Path

from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.ledger import Ledger, labels
from edgewright_controller.manifest import Manifest, ManifestError, SelectionError, parse, select
from edgewright_controller.plan import Plan, PlanError
from edgewright_controller.plan import plan as make_plan
from edgewright_controller.service.change import BadInput, ManifestText, Selection
from edgewright_controller.service.survey import Survey, Surveyor


class Planning:
    """Plans for one fleet."""

    def __init__(self, fleet: str, ledger: Ledger, surveyor: Surveyor) -> None:
        self._fleet, self._ledger, self._surveyor = fleet, ledger, surveyor

    async def read(self, text: ManifestText) -> Manifest:
        """The manifest, with the labels that devices were given. Raises BadInput, LedgerError."""
        given = await self._ledger.read(labels.every)
        try:
            manifest = parse(text.text, file=text.file, labels=given)
        except ManifestError as error:
            raise BadInput(str(error)) from error
        if manifest.fleet.name != self._fleet:
            raise BadInput(
                f"{text.file}: fleet.name: {manifest.fleet.name!r}; this controller's fleet is {self._fleet!r}"
            )
        if not Path(text.folder).is_absolute():
            raise BadInput(f"{text.file}: its folder must be sent as an absolute path, not {text.folder!r}")
        return manifest.resolve(Path(text.folder))

    async def plan(
        self, manifest: Manifest, text: ManifestText, only: Selection, *, again: bool, before: Survey | None = None
    ) -> tuple[Plan, Survey]:
        """What to do, and what was seen. `before`: what was seen last, of which far sources are not asked again.

        Raises BadInput, ChangeRefused, LedgerError.
        """
        try:
            selected = select(manifest, only.devices, only.groups)
        except SelectionError as error:
            raise BadInput("\n".join(f"{text.file}: {line}" for line in str(error).splitlines())) from error
        resolved = before.seen.resolved if before else None
        survey = await self._surveyor.survey(manifest, text.file, selected, resolved)
        try:
            return make_plan(manifest, survey.world, again=again, only=selected), survey
        except (RecipeError, PlanError) as error:
            raise BadInput(f"{text.file}: {error}") from error
