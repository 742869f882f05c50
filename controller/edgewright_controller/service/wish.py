"""What somebody wishes of the fleet: a rollout that is to be, and what it would be to each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from edgewright_controller.ledger import devices
from edgewright_controller.rollout import DevicePhase, RolloutPhase, RolloutPolicy, RolloutState, RolloutTarget

_UNDER_WAY: Final = (DevicePhase.WAITING, DevicePhase.OFFERED, DevicePhase.UPDATING)


@dataclass(frozen=True)
class Wish:
    """What a new rollout shall give each device (None: nothing), how many of them first, and under which policy.
    `by` names the operator, `about` says what it is for. `back_to` says what devices return to if it is taken back;
    without it, a device returns to the newest release that worked there and was not rolled back. With `not_again` it
    does not begin when one of its releases was rolled back meanwhile. `why`: the operator's reason. `refuses`: what is
    rolled back with it, (device or empty for all, release). `spares`: devices to which other rollouts shall give
    nothing more, though this one does not either."""

    releases: Mapping[str, str | None]
    first_wave: int
    policy: RolloutPolicy
    by: str
    about: str
    back_to: Mapping[str, str] = field(default_factory=dict)
    not_again: bool = False
    why: str = ""
    refuses: frozenset[tuple[str, str]] = frozenset()
    spares: frozenset[str] = frozenset()


def does(state: RolloutState, wish: Wish) -> bool:
    """Whether the rollout is on its way to just what is wished: the same for the same devices, and none failed."""
    if state.phase not in (RolloutPhase.RUNNING, RolloutPhase.WAITING) or state.ending is not None:
        return False
    if any(state.members[phase] for phase in DevicePhase if phase not in (*_UNDER_WAY, DevicePhase.SUCCEEDED)):
        return False
    left = {device: state.targets[device].release for phase in _UNDER_WAY for device in state.members[phase]}
    return left == dict(wish.releases) and state.spec.policy == wish.policy


def targets(connection: Connection, wish: Wish) -> Sequence[RolloutTarget]:
    """Each device's part in the wish."""
    last_good = devices.last_good(connection, [device for device, release in wish.releases.items() if release is None])

    def previous(device: str, release: str | None) -> str | None:
        if device in wish.back_to:
            return wish.back_to[device]
        if release is None:  # a removal leaves what is served, and that is what comes back
            return last_good.get(device)
        return devices.good_before(connection, device, release)

    return [
        RolloutTarget(device, release, previous(device, release), devices.generation_of(connection, device, release))
        for device, release in wish.releases.items()
    ]
