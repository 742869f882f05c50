"""Why a plan is not carried out. Pure. Each `refuse_…` raises ChangeRefused, one line for each reason."""

from __future__ import annotations

from edgewright_controller.plan import Kind, Plan
from edgewright_controller.service.change import ChangeRefused, Selection


def refuse_builds(plan: Plan) -> None:
    """What was measured before on a build that is needed is outside the limits that the manifest sets now."""
    lines = [f"build {build.model} {build.recipe}: {line}" for build in plan.refused_builds for line in build.refused]
    if lines:
        raise ChangeRefused("\n".join(lines))


def refuse_misfits(plan: Plan) -> None:
    """Something does not fit its device."""
    if plan.misfits:
        raise ChangeRefused("\n".join(misfit.message for misfit in plan.misfits))


def refuse_held(plan: Plan) -> None:
    """A release was rolled back or failed where it is to go."""
    held = [change for change in plan.changes if change.kind is Kind.HELD]
    if held:
        raise ChangeRefused("\n".join(f"{change.device}: {change.model}: {change.note}" for change in held))


def refuse_cordoned(plan: Plan, only: Selection) -> None:
    """Whoever names a cordoned device must know that nothing reaches it; in a group or a fleet it is passed over."""
    cordoned = [change for change in plan.changes if change.kind is Kind.CORDONED and change.device in only.devices]
    if cordoned:
        raise ChangeRefused("\n".join(f"{change.device}: {change.note}" for change in cordoned))


def nothing_to_do(plan: Plan) -> str:
    """Why a plan without changes has none."""
    waiting = [change.device for change in plan.changes if change.kind is Kind.UNENROLLED]
    cordoned = [change.device for change in plan.changes if change.kind is Kind.CORDONED]
    left_out = [f"not enrolled yet: {', '.join(waiting)}"] * bool(waiting)
    left_out += [f"cordoned: {', '.join(cordoned)}"] * bool(cordoned)
    if left_out:
        return f"nothing to do; {'; '.join(left_out)}"
    return "nothing to do: every device has what the manifest says"
