"""Which of the devices that change are in which wave, and under which policy. Pure.

A wave that is counted fills up with devices that are online, then with the others, each in the order of their ids: what
goes wrong is then known soon, and not when a sleeping device's deadline has passed. One that matches, or names a group,
has all that it chooses and that no earlier wave has. A wave for which no device is left is dropped; what was to follow
it then follows the wave before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgewright_controller.gates import GatePolicy, HealthPolicy
from edgewright_controller.manifest import Manifest, Rollout, Wave
from edgewright_controller.manifest.quantities import devices_of_share
from edgewright_controller.rollout import AfterWave, OnFailure, RolloutPolicy, Then

# What an operator waits for counts more than what goes on by itself.
_STRENGTH: Final = (Then.GO_ON, Then.PAUSE, Then.APPROVAL)


@dataclass(frozen=True)
class Changed:
    """A device that is to change."""

    device: str
    online: bool = False


@dataclass(frozen=True)
class PlannedWave:
    """Devices in the order in which they are offered the change; `soak_s` is how long the wave is watched, `then` what
    follows it, `what` how the manifest selects it."""

    devices: tuple[str, ...]
    soak_s: float = 0.0
    then: Then = Then.GO_ON
    what: str = ""

    @property
    def after(self) -> AfterWave:
        """What follows it, as a rollout has it."""
        return AfterWave(self.soak_s, self.then, self.what)


def waves_of(manifest: Manifest, changed: Sequence[Changed]) -> tuple[PlannedWave, ...]:
    """The waves of a rollout to these devices; none when there are none. All of them are the manifest's."""
    planned: list[PlannedWave] = []
    for wave in _filled(manifest, changed):
        if wave.devices:
            planned.append(wave)
        elif planned:
            before = planned[-1]
            then = max(before.then, wave.then, key=_STRENGTH.index)
            planned[-1] = replace(before, then=then, soak_s=max(before.soak_s, wave.soak_s))
    if planned:  # after the last wave nothing is left to wait with
        planned[-1] = replace(planned[-1], then=Then.GO_ON)
    return tuple(planned)


def _filled(manifest: Manifest, changed: Sequence[Changed]) -> Iterator[PlannedWave]:
    """Each wave that the manifest has, with its devices; some may have none."""
    rollout, total = manifest.rollout, len(changed)
    left = [one.device for one in sorted(changed, key=lambda one: (not one.online, one.device))]
    for wave in rollout.in_waves:
        if wave.devices is not None:
            meant = devices_of_share(wave.devices, total) if total else 0
            chosen = left[: max(0, meant - (total - len(left)))]
        else:
            choice = _choice(manifest, wave)
            chosen = [device for device in left if device in choice]
        taken = set(chosen)
        left = [device for device in left if device not in taken]
        yield PlannedWave(tuple(chosen), float(rollout.soak_of(wave)), _then(wave), wave.words)


def _choice(manifest: Manifest, wave: Wave) -> frozenset[str]:
    if wave.group is not None:
        return manifest.members(wave.group)
    match = wave.match
    return frozenset(
        name for name, device in manifest.devices.items() if match is not None and match.chooses(device.labels)
    )


def _then(wave: Wave) -> Then:
    return Then.APPROVAL if wave.approval else Then.PAUSE if wave.pause else Then.GO_ON


def policy_of(rollout: Rollout) -> RolloutPolicy:
    """The policy that the manifest's table `rollout` writes down."""
    health = HealthPolicy(on=rollout.health == "on")
    if rollout.health_ratio is not None:
        health = replace(health, ratio=rollout.health_ratio)
    if rollout.health_min_requests is not None:
        health = replace(health, min_requests=rollout.health_min_requests)
    return RolloutPolicy(
        device_deadline_s=rollout.device_deadline_s,
        gate=GatePolicy(
            max_failures=rollout.max_failures,
            soak_s=rollout.soak_s,
            max_failed_percent=rollout.max_failed_percent,
            health=health,
        ),
        on_failure=OnFailure(rollout.on_failure),
        patience_s=rollout.patience_s,
        step_deadlines_s=rollout.step_deadlines.seconds,
        deadline_s=rollout.deadline_s,
        devices_per_minute=rollout.devices_per_minute,
    )
