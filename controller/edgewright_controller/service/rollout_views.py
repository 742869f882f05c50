"""Rollouts as operators see them: those that run, from memory, and those in the ledger. Values in, messages out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import rollouts
from edgewright_controller.rollout import DevicePhase, RolloutPhase, RolloutSpec, RolloutState, Window, window
from edgewright_controller.service.waits_for import waits_for, watched_at


def of_row(connection: Connection, row: rollouts.RolloutRow) -> operator_pb2.RolloutView:
    """One in the ledger."""
    view = about(row)
    view.rollout, view.state, view.reason = row.id, row.state.value, row.reason
    view.wave, view.waves = row.wave, row.waves
    view.devices_by_state.update({phase.value: count for phase, count in rollouts.counts(connection, row.id).items()})
    return view


def about(row: rollouts.RolloutRow) -> operator_pb2.RolloutView:
    """What never changes of a rollout: what it is, whose, why, since when, and until when if it has ended."""
    return operator_pb2.RolloutView(
        what=str(row.about.get("what", "")),
        why=str(row.about.get("why", "")),
        by=row.created_by,
        created_unix_ms=int(row.created_at * 1000),
        ended_unix_ms=int((row.ended_at or 0.0) * 1000),
    )


def of_state(
    state: RolloutState, now: float, known: operator_pb2.RolloutView | None = None
) -> operator_pb2.RolloutView:
    """One that runs, or ran last, at `now` (Unix seconds); `known`: what never changes of it, see `about`."""
    wait = waits_for(state, now)
    view = operator_pb2.RolloutView(
        rollout=state.spec.id,
        state=state.phase.value,
        reason=state.reason,
        wave=state.wave,
        waves=len(state.spec.waves),
        devices_by_state={phase.value: count for phase, count in state.counts.items() if count},
        waits_for=wait.words,
        waits_s=wait.seconds or 0.0,
        now_unix_ms=int(now * 1000),
    )
    if known is not None:
        view.MergeFrom(known)
    if state.finished and not view.ended_unix_ms:
        view.ended_unix_ms = int(state.clock.wall * 1000)
    return view


def shown(connection: Connection, row: rollouts.RolloutRow, now: float) -> operator_pb2.ShowRolloutResponse:
    """Everything that the ledger has of a rollout, as of `now` (Unix seconds)."""
    state = rollouts.load(connection, row.id)
    view = of_row(connection, row)
    wait = waits_for(state, now)
    view.waits_for, view.waits_s, view.now_unix_ms = wait.words, wait.seconds or 0.0, int(now * 1000)
    since = rollouts.changed_at(connection, row.id)
    changes = [
        operator_pb2.RolloutChangeView(
            device=change.device or "", state=change.state, at_unix_ms=int(change.at * 1000), reason=change.reason
        )
        for change in rollouts.history(connection, row.id)
    ]
    return operator_pb2.ShowRolloutResponse(
        rollout=view,
        waves=waves(state.spec),
        devices=_devices(state, since, now),
        changes=changes,
        policy=_policy(state.spec),
    )


def waves(spec: RolloutSpec) -> list[operator_pb2.WaveView]:
    """What each wave is, and what comes after it."""
    views = []
    for number, wave in enumerate(spec.waves, 1):
        after = spec.after_wave(number)
        views.append(
            operator_pb2.WaveView(
                number=number, devices=len(wave), soak_s=after.soak_s, then=after.then.value, what=after.what
            )
        )
    return views


def _devices(state: RolloutState, since: Mapping[str, float], now: float) -> list[operator_pb2.RolloutDeviceView]:
    watched = watched_at(state, now)
    views = []
    for number, wave in enumerate(state.spec.waves, 1):
        for target in wave:
            device = state.devices[target.device]
            view = operator_pb2.RolloutDeviceView(
                device=target.device,
                wave=number,
                state=device.phase.value,
                reason=device.reason,
                generation=device.generation,
                release=target.release or "",
                previous=target.previous or "",
                since_unix_ms=int(since[target.device] * 1000),
                detached=device.detached,
            )
            if device.deadline is not None and not state.finished:
                # One that is due is called silent by the next tick; until then a little is left.
                view.answers_within_s = max(0.001, device.deadline - watched)
            views.append(view)
    return views


def _policy(spec: RolloutSpec) -> operator_pb2.RolloutPolicyView:
    policy = spec.policy
    return operator_pb2.RolloutPolicyView(
        device_deadline_s=policy.device_deadline_s,
        max_failures=policy.gate.max_failures,
        max_failed_percent=policy.gate.max_failed_percent,
        on_failure=policy.on_failure.value,
        patience_s=policy.patience_s,
        deadline_s=policy.deadline_s or 0.0,
        devices_per_minute=policy.devices_per_minute or 0,
        windows=_windows(spec),
    )


def _windows(spec: RolloutSpec) -> list[str]:
    """The maintenance windows that there are, each with whose it is."""
    groups: dict[tuple[tuple[Window, ...], str], list[str]] = {}
    for wave in spec.waves:
        for target in wave:
            if target.windows:
                groups.setdefault((target.windows, target.zone), []).append(target.device)
    return [
        f"{devices[0]}{f' and {len(devices) - 1} more' if len(devices) > 1 else ''}: {window.words(windows)} {zone}"
        for (windows, zone), devices in groups.items()
    ]


def progress(
    state: RolloutState, now: float, known: operator_pb2.RolloutView | None = None, *, with_waves: bool = False
) -> operator_pb2.RolloutProgress:
    """How a rollout stands, for one event of a stream."""
    return operator_pb2.RolloutProgress(
        rollout=state.spec.id,
        state=state.phase.value,
        wave=state.wave,
        waves=len(state.spec.waves),
        reason=state.reason,
        view=of_state(state, now, known),
        wave_views=waves(state.spec) if with_waves else [],
    )


def device_progress(state: RolloutState, devices: Sequence[str]) -> list[operator_pb2.DeviceProgress]:
    """How these devices stand."""
    return [
        operator_pb2.DeviceProgress(
            device=device,
            state=state.devices[device].phase.value,
            wave=state.waves[device],
            reason=state.devices[device].reason,
        )
        for device in devices
    ]


def result(phase: RolloutPhase, reason: str, counts: Mapping[DevicePhase, int]) -> operator_pb2.ApplyResult:
    """How a rollout that has ended went. One that succeeded with devices that failed has not done what was asked."""
    bad = sum(counts.get(one, 0) for one in (DevicePhase.FAILED, DevicePhase.TIMED_OUT))
    return operator_pb2.ApplyResult(
        succeeded=phase is RolloutPhase.SUCCEEDED and not bad,
        summary=f"{phase.value}: {reason}",
        devices_succeeded=counts.get(DevicePhase.SUCCEEDED, 0),
        devices_failed=bad,
    )
