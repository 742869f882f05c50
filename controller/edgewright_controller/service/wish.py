"""What somebody wishes of the fleet: a rollout that is to be, and what it would be to each device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final

from sqlalchemy import Connection

from edgewright_controller.ledger import devices
from edgewright_controller.rollout import (
    AfterWave,
    DevicePhase,
    RolloutError,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutState,
    RolloutTarget,
    Window,
)

_GOES_ON: Final = (RolloutPhase.RUNNING, RolloutPhase.WAITING, RolloutPhase.PAUSED, RolloutPhase.APPROVAL)
_UNDER_WAY: Final = (DevicePhase.WAITING, DevicePhase.OFFERED, DevicePhase.UPDATING)


@dataclass(frozen=True)
class Wish:
    """What a new rollout shall give each device (None: nothing), and under which policy.
    `by` names the operator, `about` says what it is for, `why` is the operator's reason.

    `waves`: which devices come together, all of `releases` each once; without it, all of them do.
    `after`: what follows each wave. `windows`: device → when it may be offered something, the time zone of that,
    and when it may download.

    `back_to` says what devices return to if it is taken back; without it, a device returns to the newest release that
    worked there and was not rolled back. With `not_again` it does not begin when one of its releases was rolled back
    meanwhile. `refuses`: what is rolled back with it, (device or empty for all, release). `spares`: devices to which
    other rollouts shall give nothing more, though this one does not either. `lifts_holds`: devices that are told to try
    again what failed there.

    `supersede`: it may also take a part of what another rollout still has to do, as what takes something back always
    may. `by_itself`: no operator asked for it.
    """

    releases: Mapping[str, str | None]
    policy: RolloutPolicy
    by: str
    about: str
    back_to: Mapping[str, str] = field(default_factory=dict)
    not_again: bool = False
    why: str = ""
    refuses: frozenset[tuple[str, str]] = frozenset()
    spares: frozenset[str] = frozenset()
    waves: tuple[tuple[str, ...], ...] = ()
    after: tuple[AfterWave, ...] = ()
    windows: Mapping[str, tuple[tuple[Window, ...], str, tuple[Window, ...]]] = field(default_factory=dict)
    lifts_holds: frozenset[str] = frozenset()
    supersede: bool = False
    by_itself: bool = False

    @property
    def undoes(self) -> bool:
        """Whether it takes something back, rather than handing something out."""
        return bool(self.back_to)

    @property
    def actor(self) -> str:
        """Who did it, as the audit log names actors."""
        return self.by if self.by_itself else f"operator {self.by}"

    def without(self, devices: Collection[str]) -> Wish:
        """The same for all others. Waves that lose every device go with them."""
        left = [
            (tuple(device for device in wave if device not in devices), after)
            for wave, after in zip_longest(self.waves, self.after)
            if wave is not None
        ]
        kept = [(wave, after) for wave, after in left if wave]
        return replace(
            self,
            releases={device: release for device, release in self.releases.items() if device not in devices},
            waves=tuple(wave for wave, _ in kept),
            after=tuple(after for _, after in kept if after is not None) if self.waves else self.after,
        )


def does(state: RolloutState, wish: Wish) -> bool:
    """Whether the rollout is on its way to just what is wished: the same for the same devices, and none failed."""
    if state.phase not in _GOES_ON or state.ending is not None:
        return False
    if any(state.members[phase] for phase in DevicePhase if phase not in (*_UNDER_WAY, DevicePhase.SUCCEEDED)):
        return False
    left = {device: state.targets[device].release for phase in _UNDER_WAY for device in state.members[phase]}
    return left == dict(wish.releases) and state.spec.policy == wish.policy


def targets(connection: Connection, wish: Wish) -> Sequence[RolloutTarget]:
    """Each device's part in the wish."""
    last_good = devices.last_good(connection, [device for device, release in wish.releases.items() if release is None])
    good = devices.good_before(connection, wish.releases)
    generations = devices.generations_of(connection, wish.releases)

    def previous(device: str, release: str | None) -> str | None:
        if device in wish.back_to:
            return wish.back_to[device]
        if release is None:  # a removal leaves what is served, and that is what comes back
            return last_good.get(device)
        return good.get(device)

    return [
        RolloutTarget(
            device,
            release,
            previous(device, release),
            generations[device],
            *wish.windows.get(device, ((), "UTC", ())),
        )
        for device, release in wish.releases.items()
    ]


def spec(connection: Connection, rollout: str, wish: Wish) -> RolloutSpec:
    """The rollout that is wished. Raises RolloutError when it can be none."""
    parts = targets(connection, wish)
    if not wish.waves:
        return RolloutSpec(rollout, (tuple(parts),), wish.policy, wish.after)
    by_device = {part.device: part for part in parts}
    waves = tuple(tuple(by_device.pop(device) for device in wave) for wave in wish.waves)
    if by_device:
        raise RolloutError(f"rollout {rollout}: {', '.join(sorted(by_device))} would be in none of its waves")
    return RolloutSpec(rollout, waves, wish.policy, wish.after)
