"""Why nothing, or something unexpected, happens to a device, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from edgewright_contract.release import Release
from edgewright_controller.world import DeviceFact, Outcome, RollbackFact, World


def under_way(fact: DeviceFact) -> str:
    """Empty unless the device is on its way to what it is to have."""
    return "under way" if fact.outcome is not Outcome.SUCCEEDED and fact.active_release != fact.desired_release else ""


def drift(fact: DeviceFact, digest: str, rollback: RollbackFact) -> str:
    """Where manifest and reality differ since a rollback."""
    at = datetime.fromtimestamp(rollback.at_ms / 1000, UTC)
    if fact.active_release == digest:  # it is on its way back
        has = f"it returns to {fact.given_release[:12]}" if fact.given_release else "it is to have none"
    else:
        has = f"it has {fact.active_release[:12]}" if fact.active_release else "it has none"
    who = f"{rollback.by} rolled that back on {at:%Y-%m-%d at %H:%M} UTC"
    return f"drift: the manifest says {digest[:12]}, {has}; {who}" + (f": {rollback.why}" if rollback.why else "")


def held_because(fact: DeviceFact, digest: str) -> str:
    """Why a release that the device holds back is held."""
    if digest == fact.desired_release and fact.reason:
        return f"failed there before: {fact.reason}"
    return "failed there before"


def difference(release: Release, digest: str, fact: DeviceFact, world: World) -> str:
    """What sets the release apart from what the device serves, where that is worth a word."""
    if digest == fact.active_release:
        return "serves it already; settles what is desired"
    if digest == fact.desired_release:
        return f"tries again: {fact.reason or 'it failed before'}"
    old = world.releases.get(fact.active_release)
    if old is None or old.artifact != release.artifact:
        return ""
    changed = [
        name for name in ("options", "probes", "model", "profile") if getattr(old, name) != getattr(release, name)
    ]
    return f"the same artifact with other {' and '.join(changed) or 'settings'}"
