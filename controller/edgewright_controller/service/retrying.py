"""A rollout that has ended is tried again, in a new one, on devices where it failed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection

from edgewright_controller.ledger import cordons, devices, rolled_back_on, rollouts
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.rollout import AfterWave, DeviceChange, DevicePhase, RolloutError, RolloutState
from edgewright_controller.service.wish import Wish

FAILED: Final = (DevicePhase.FAILED, DevicePhase.TIMED_OUT)
_WHEN_NAMED: Final = (*FAILED, DevicePhase.SKIPPED, DevicePhase.REVERTED)


def again(
    connection: Connection, rollout: str, named: Collection[str], *, by: str, why: str, shut: frozenset[str]
) -> Wish:
    """The same release under the same policy for `named` devices of a rollout that has ended, all at once; without
    `named`, for all that failed or fell silent and may have it. `shut`: devices that may say nothing any more.

    Raises NotInLedger when there is no such rollout, RolloutError when one of `named` may not have it, or nobody may.
    """
    about = rollouts.get(connection, rollout).about
    state = rollouts.load(connection, rollout)
    meant = sorted(set(named)) or _failed(state)
    hindered = _hindered(connection, state, meant, shut)
    faults = [f"{device}: {reason}" for device, reason in hindered.items()]
    given = [device for device in meant if device not in hindered]
    if faults and (named or not given):
        raise RolloutError("\n".join(faults))
    targets = [state.targets[device] for device in given]
    soak_s = max(state.spec.after_wave(state.waves[device]).soak_s for device in given)
    undoes = bool(about.get("undoes"))
    return Wish(
        releases={target.device: target.release for target in targets},
        policy=state.spec.policy,
        by=by,
        about=f"retry of {rollout}, {about.get('what', '')}".rstrip(", "),
        back_to={target.device: target.previous for target in targets if target.previous} if undoes else {},
        not_again=True,
        why=why,
        after=(AfterWave(soak_s),),
        windows={target.device: (target.windows, target.zone, target.delivery) for target in targets},
        lifts_holds=frozenset(given),
    )


def _failed(state: RolloutState) -> list[str]:
    failed = sorted(name for name, device in state.devices.items() if device.phase in FAILED and not device.detached)
    if not failed:
        ended = state.phase.value
        raise RolloutError(f"rollout {state.spec.id} has ended ({ended}), and no device failed in it: nothing to retry")
    return failed


def _hindered(
    connection: Connection, state: RolloutState, meant: Collection[str], shut: frozenset[str]
) -> Mapping[str, str]:
    """Why those who may not have it may not."""
    wanted = {device: state.targets[device].release for device in meant if device in state.targets}
    refused = rolled_back_on.refused(connection, wanted)
    cordoned = cordons.every(connection, meant)
    desired = devices.desired(connection, meant)
    live = rollouts.live_of(connection, meant)
    found = {}
    for device in meant:
        stands = state.devices.get(device)
        if stands is None:
            found[device] = f"{state.spec.id} has no such device; `edgewright rollout show {state.spec.id}` lists them"
        elif (reason := _by_phase(state.spec.id, stands)) != "":
            found[device] = reason
        elif device in refused:
            found[device] = f"release {refused[device][:12]} was rolled back; `edgewright apply --again` releases it"
        elif device in shut:
            found[device] = f"it is revoked; enrol it again: edgewright enroll create --device {device}"
        elif device in cordoned:
            found[device] = is_cordoned(cordoned[device])
        elif device in live:
            found[device] = f"it is in {live[device]}, which runs; `edgewright rollout watch {live[device]}` shows how"
        elif stands.detached or (device in desired and desired[device].generation != stands.generation):
            found[device] = "it was given something else since; `edgewright apply` gives it what the manifest says"
    return found


def is_cordoned(row: CordonRow) -> str:
    """Why a cordoned device gets nothing, and what lets it."""
    return f"cordoned by {row.words}; `edgewright devices uncordon {row.device}` lets it have something"


def _by_phase(rollout: str, device: DeviceChange) -> str:
    if device.phase in _WHEN_NAMED:
        return ""
    return f"it {device.phase.value} in {rollout}; only one that failed, fell silent or was skipped can be retried"
