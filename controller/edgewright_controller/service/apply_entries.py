"""What an apply leaves in the ledger: which builds models have, which releases there are, what is applied, what no
longer is held back. Functions of a connection, for the ledger's writer."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection

from edgewright_contract import canonical
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import applied, assignments, model_builds, releases, requests, rolled_back_on
from edgewright_controller.ledger.model_builds import ModelBuildRow
from edgewright_controller.manifest import Manifest
from edgewright_controller.plan import Plan
from edgewright_controller.service.change import ManifestText


def builds(connection: Connection, plan: Plan, now_ms: int) -> None:
    """Which builds the models have, and what the limits of now say of those that were measured."""
    known = {build.key: build for build in plan.builds if not build.provisional}
    wanted = {(build.model, build.key) for build in known.values()}
    wanted |= {(change.model, change.build_key) for change in plan.changes if change.build_key in known}
    for model, key in sorted(wanted):
        recipe = known[key].recipe
        document = canonical.encode(recipe.to_json()).decode("ascii")
        row = ModelBuildRow(model, key, recipe.runtime, recipe.quantization, document, now_ms)
        model_builds.put(connection, row)
    for build in plan.builds:
        if build.cached or build.refused:
            model_builds.judged(connection, build.key, "\n".join(build.refused), now_ms)


def planned_releases(connection: Connection, manifest: Manifest, plan: Plan, now_ms: int) -> list[ImageTarget]:
    """The releases of the plan, each once, in order; what is to be signed for them."""
    digests: dict[str, None] = {}
    for change in plan.changes:
        if change.release is not None:
            epoch = manifest.models[change.model].release_epoch
            digests[releases.put(connection, change.release, epoch, now_ms)] = None
    return [releases.get(connection, digest).target for digest in digests]


def manifest_applied(
    connection: Connection, manifest: Manifest, plan: Plan, text: ManifestText, *, by: str, why: str, now_ms: int
) -> None:
    """From now on this manifest says what groups there are, and what a newcomer gets."""
    said = {"file": text.file, "folder": text.folder, "text": text.text, "reason": why}
    given = {change.device: change.to_release or None for change in plan.changes}
    applied.put(connection, by=by, **said, now_ms=now_ms)
    assignments.put(connection, given, manifest.devices, now_ms)


def holds_lifted(connection: Connection, plan: Plan, *, everywhere: bool, now_ms: int) -> None:
    """What was rolled back is released again: here, and on the devices that hold it. An apply for a part of the
    fleet releases it only there; to the others it is refused as before."""
    kind = agent_pb2.DeviceRequest.KIND_RELEASE_HOLD
    for change in plan.to_do:
        if change.to_release:
            if everywhere:
                releases.unmark_rolled_back(connection, change.to_release)
            rolled_back_on.unmark(connection, change.device, change.to_release)
        if change.lifts_hold:
            asked = uuid.uuid4().hex
            requests.ask(connection, asked, change.device, kind, argument=change.to_release, now_ms=now_ms)
