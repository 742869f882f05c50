"""In what the keys of `rollout` contradict each other, or the rest of the manifest. Each finding says what would do."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from edgewright_controller.manifest.assignment import Fault, Path, memberships
from edgewright_controller.manifest.errors import quoted, suggestion
from edgewright_controller.manifest.quantities import ALL, devices_of_share, duration_text
from edgewright_controller.rollout.window import longest_gap

if TYPE_CHECKING:
    from edgewright_controller.manifest.profiles import Match
    from edgewright_controller.manifest.rollout import Wave, Windows
    from edgewright_controller.manifest.schema import Manifest

HERE: Final[Path] = ("rollout",)


def rollout_faults(manifest: Manifest) -> Iterable[Fault]:
    """Every contradiction."""
    rollout = manifest.rollout
    if rollout.waves is not None:
        if rollout.first_wave is not None:
            yield Fault((*HERE, "first_wave"), "cannot stand beside waves; keep one of the two")
        yield from _counted(manifest, rollout.waves)
        yield from _chosen(manifest, rollout.waves)
        last = rollout.waves[-1]
        if last.approval or last.pause:
            key = "approval" if last.approval else "pause"
            message = "comes after the last wave, when nothing is left to wait with; move it to an earlier wave"
            yield Fault((*HERE, "waves", len(rollout.waves) - 1, key), message)
    yield from _deadlines(manifest)
    yield from _patience(manifest)
    if rollout.health == "off":
        for key in ("health_ratio", "health_min_requests"):
            if getattr(rollout, key) is not None:
                yield Fault((*HERE, key), 'cannot be used: health is "off"; remove one of the two')


def rollout_warnings(manifest: Manifest) -> Iterable[str]:
    """What is allowed, and probably not meant."""
    deadline = manifest.rollout.deadline_s
    for path, windows in (*_all_windows(manifest), *_delivery_windows(manifest)):
        shut = _shut_for(windows)
        if deadline is not None and deadline < shut:
            yield (
                f"rollout.deadline: {duration_text(deadline)} may end before {'.'.join(path)} opens, which is shut for "
                f"{duration_text(shut)}"
            )


# ── Waves ──


def _counted(manifest: Manifest, waves: tuple[Wave, ...]) -> Iterable[Fault]:
    """Numbers and shares count all that have it by then, so they rise, and end with everybody."""
    total = len(manifest.devices)
    counted = [(index, wave.devices) for index, wave in enumerate(waves) if wave.devices is not None]
    for (_, before), (index, share) in pairwise(counted):
        here: Path = (*HERE, "waves", index)
        meant, so_far = devices_of_share(share, total), devices_of_share(before, total)
        if isinstance(before, str) == isinstance(share, str) and _number(share) <= _number(before):
            why = ""
        elif meant < so_far:
            why = f": of the manifest's {total} devices they mean {meant} and {so_far}"
        else:
            continue
        message = f"{_written(share)} does not rise above {_written(before)} before it{why}; a wave counts all so far"
        yield Fault(here, message)
    if waves[-1].devices != ALL:
        last: Path = (*HERE, "waves", len(waves) - 1)
        yield Fault(last, 'is the last wave, and must be "100%": else some devices would never get the change')


def _number(share: int | str) -> int:
    return share if isinstance(share, int) else int(share[:-1])


def _written(share: int | str) -> str:
    return str(share) if isinstance(share, int) else quoted(share)


def _chosen(manifest: Manifest, waves: tuple[Wave, ...]) -> Iterable[Fault]:
    """Waves that choose their devices choose at least one of the manifest's."""
    groups_of, taken = memberships(manifest), set[str]()
    for index, wave in enumerate(waves):
        here: Path = (*HERE, "waves", index, "match" if wave.match is not None else "group")
        if wave.group is not None and wave.group not in manifest.groups:
            yield Fault(here, f"there is no group {quoted(wave.group)}{suggestion(wave.group, manifest.groups)}")
            continue
        if wave.match is not None:
            found = {name for name, device in manifest.devices.items() if wave.match.chooses(device.labels)}
        elif wave.group is not None:
            found = {name for name, groups in groups_of.items() if wave.group in groups}
        else:
            continue
        if not found:
            why = _nobody(manifest, wave.match) if wave.match is not None else f"groups.{wave.group} has no device"
            yield Fault(here, f"selects no device: {why}", for_want_of_labels=True)
        elif found <= taken:
            message = "selects no device that an earlier wave has not taken; remove this wave, or move it up"
            yield Fault(here, message, for_want_of_labels=True)
        taken |= found


def _nobody(manifest: Manifest, match: Match) -> str:
    """Why no device has all these labels, with the near ones."""
    for name, value in sorted(match.labels.items()):
        values = {labels[name] for device in manifest.devices.values() if name in (labels := device.labels)}
        if not values:
            known = {label for device in manifest.devices.values() for label in device.labels}
            return f"none has a label {quoted(name)}{suggestion(name, known)}"
        if value not in values:
            return f"none has {name} = {quoted(value)}{suggestion(value, values)}"
    return f"none has all of {match.words}"


# ── Times ──


def _deadlines(manifest: Manifest) -> Iterable[Fault]:
    rollout = manifest.rollout
    for step, seconds in rollout.step_deadlines.seconds.items():
        if seconds > rollout.device_deadline_s:
            message = (
                f"{duration_text(seconds)} is longer than device_deadline, {duration_text(rollout.device_deadline_s)}"
            )
            yield Fault((*HERE, "step_deadlines", step), f"{message}; shorten it, or raise device_deadline")
    soaks = sum(rollout.soak_of(wave) for wave in rollout.in_waves)
    if rollout.deadline_s is not None and rollout.deadline_s <= soaks:
        message = (
            f"{duration_text(rollout.deadline_s)} is not longer than the soaks of all waves, {duration_text(soaks)}"
        )
        yield Fault((*HERE, "deadline"), f"{message}; raise it, or shorten the soaks")


def _patience(manifest: Manifest) -> Iterable[Fault]:
    rollout, here = manifest.rollout, (*HERE, "patience")
    patience = duration_text(rollout.patience_s)
    longest = max(rollout.soak_of(wave) for wave in rollout.in_waves)
    if rollout.patience_s < longest:
        yield Fault(here, f"{patience} is shorter than a soak, {duration_text(longest)}; raise it, or shorten the soak")
    for path, windows in _all_windows(manifest):
        shut = _shut_for(windows)
        if rollout.patience_s < shut + rollout.device_deadline_s:
            yield Fault(
                here,
                f"{patience} is shorter than {'.'.join(path)} may be shut, {duration_text(shut)}, and device_deadline, "
                f"{duration_text(rollout.device_deadline_s)}, together; raise it, or open a window more often",
            )


def _all_windows(manifest: Manifest) -> Iterable[tuple[tuple[str, ...], Windows]]:
    if manifest.rollout.window is not None:
        yield ("rollout", "window"), manifest.rollout.window
    for name, group in sorted(manifest.groups.items()):
        if group.window is not None:
            yield ("groups", name, "window"), group.window


def _delivery_windows(manifest: Manifest) -> Iterable[tuple[tuple[str, ...], Windows]]:
    if manifest.delivery.window is not None:
        yield ("delivery", "window"), manifest.delivery.window
    for name, site in sorted(manifest.sites.items()):
        if site.window is not None:
            yield ("sites", name, "window"), site.window


def _shut_for(windows: Windows) -> int:
    return int(longest_gap([hours.window for hours in windows]))
