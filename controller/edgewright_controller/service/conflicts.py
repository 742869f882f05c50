"""Which rollouts a new one would take devices from. Pure.

A new rollout may take all that an older one still has to do: then that one is superseded, and ends. To take only a part
would leave the older one to go on with the rest, which somebody must want (docs/decisions/0017).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from edgewright_controller.plan import Plan, listed
from edgewright_controller.rollout import RolloutState
from edgewright_controller.rollout.model import UNSETTLED
from edgewright_controller.service.change import ChangeRefused


@dataclass(frozen=True)
class Conflict:
    """`taken`: devices that a new rollout would take from `rollout`. `left`: those with which that one would go on."""

    rollout: str
    taken: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def warning(self) -> str:
        """What an operator should know before."""
        if not self.left:
            return f"{self.rollout} runs, and is superseded: all that it still has to do is taken over"
        return f"{self.rollout} loses {listed(self.taken)}, and goes on with {listed(self.left)}"

    @property
    def refusal(self) -> str:
        """Why a part is not taken, and what can be done."""
        return (
            f"{listed(self.taken)}: in {self.rollout}, which would go on with {listed(self.left)}; wait for its end,"
            f" end it (`edgewright rollout abort {self.rollout}`), or take them out of it with --supersede"
        )


def conflicts(live: Iterable[RolloutState], wanted: Collection[str]) -> list[Conflict]:
    """What a rollout to `wanted` devices would take from those that run."""
    found = []
    for state in live:
        attached = [name for name, device in state.devices.items() if not device.detached]
        taken = [name for name in attached if name in wanted]
        if taken:
            to_do = [name for name in attached if state.devices[name].phase in UNSETTLED]
            left = tuple(sorted(name for name in to_do if name not in wanted))
            found.append(Conflict(state.spec.id, tuple(sorted(taken)), left))
    return found


def with_warnings(plan: Plan, live: Sequence[RolloutState], *, supersede: bool = False) -> Plan:
    """The plan, with what an apply of it would take from rollouts that run, or why it would not. Where it is just what
    one of them does, nothing is taken: that one is followed."""
    found = conflicts(live, {change.device for change in plan.to_do})
    given = {change.device: change.to_release for change in plan.to_do}
    targets = {state.spec.id: state.targets for state in live}
    taking = [
        one
        for one in found
        if one.left or any((targets[one.rollout][device].release or "") != given[device] for device in one.taken)
    ]
    said = [one.refusal if one.left and not supersede else one.warning for one in taking]
    return replace(plan, warnings=(*plan.warnings, *said)) if said else plan


def refuse_parts(plan: Plan, live: Sequence[RolloutState]) -> None:
    """Raises ChangeRefused when the plan takes only a part of what a rollout still has to do."""
    parted = [one for one in conflicts(live, {change.device for change in plan.to_do}) if one.left]
    if parted:
        raise ChangeRefused("\n".join(one.refusal for one in parted))
