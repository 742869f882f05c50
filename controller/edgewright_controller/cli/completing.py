"""What the shell offers for a half-typed rollout, device, release, model or group.

The shell asks while somebody types: the controller gets little time, and where nothing can be offered, for whatever
reason, nothing is said. The command itself says what is wrong, once it is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from edgewright_controller import access_place

if TYPE_CHECKING:
    from edgewright_controller.client import Fleet

WAIT_S: Final = 1.5
MOST: Final = 200

Offers = list[tuple[str, str]]
"""What would stand on the line, and what it is, for shells that show that."""


def rollouts(ctx: typer.Context, incomplete: str) -> Offers:
    """Rollouts, the newest first."""

    def ask(fleet: Fleet) -> Offers:
        return [(one.rollout, f"{one.state}, {one.what}") for one in fleet.rollouts().rollouts]

    return _offered(ctx, incomplete, ask)


def devices(ctx: typer.Context, incomplete: str) -> Offers:
    """Devices of the fleet."""

    def ask(fleet: Fleet) -> Offers:
        return [(one.device, one.status.active_model or one.model) for one in fleet.status().devices]

    return _offered(ctx, incomplete, ask)


def releases(ctx: typer.Context, incomplete: str) -> Offers:
    """Releases by the beginnings of their digests, the newest first."""

    def ask(fleet: Fleet) -> Offers:
        return [(one.release[:12], f"{one.model} for {one.profile}") for one in fleet.releases().releases]

    return _offered(ctx, incomplete, ask)


def models(ctx: typer.Context, incomplete: str) -> Offers:
    """Models that were compiled."""

    def ask(fleet: Fleet) -> Offers:
        return [(one.model, f"{one.builds} builds") for one in fleet.models().models]

    return _offered(ctx, incomplete, ask)


def builds(ctx: typer.Context, incomplete: str) -> Offers:
    """Builds, by the beginning of their keys."""

    def ask(fleet: Fleet) -> Offers:
        found = fleet.builds(MOST).builds
        return [(one.build_key[:12], f"{one.model} {one.recipe}, {one.state}") for one in found]

    return _offered(ctx, incomplete, ask)


def groups(ctx: typer.Context, incomplete: str) -> Offers:
    """Groups of the manifest that stands on the line."""
    import tomli

    from edgewright_contract import small_file
    from edgewright_controller.cli import manifest_file

    # While an option lacks its value, arguments are not yet matched with their names.
    named = ctx.params.get("manifest") or next(iter(ctx.args), "")
    try:
        document = tomli.loads(small_file.read_text(Path(named), manifest_file.MAX_BYTES)) if named else {}
    except (OSError, ValueError):
        return []
    tables = document.get("groups")
    return _fitting(ctx, ((name, "") for name in tables), incomplete) if isinstance(tables, dict) else []


def _offered(ctx: typer.Context, incomplete: str, ask: Callable[[Fleet], Offers]) -> Offers:
    from edgewright_controller.client import ClientError, Fleet, read_access

    config = ctx.params.get("config") or os.environ.get(access_place.CONFIG) or access_place.default_config()
    controller = ctx.params.get("controller") or os.environ.get(access_place.CONTROLLER)
    try:
        with Fleet(read_access(Path(config), controller), patience_s=WAIT_S) as fleet:
            found = ask(fleet)
    except (ClientError, OSError):
        return []
    return _fitting(ctx, found, incomplete)


def _fitting(ctx: typer.Context, offers: Iterable[tuple[str, str]], incomplete: str) -> Offers:
    """Those that go on like `incomplete` and do not stand on the line yet."""
    typed = {name for value in ctx.params.values() if isinstance(value, list | tuple) for name in value}
    return [one for one in offers if one[0].startswith(incomplete) and one[0] not in typed][:MOST]
