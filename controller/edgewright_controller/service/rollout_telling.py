"""What those who follow a rollout are told of it, in the wire's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.rollout import Changes, RolloutState
from edgewright_controller.service.job import Job

Statuses = Mapping[str, agent_pb2.DeviceStatus]


def standing(job: Job, state: RolloutState) -> None:
    """How it all stands, to somebody who just came."""
    for device in state.devices:
        job.say(_device(state, device, None))
    job.say(_rollout(state))


def changed(jobs: Iterable[Job], state: RolloutState, changes: Changes, statuses: Statuses) -> None:
    """What has changed. `statuses`: what devices said of it just now."""
    for change in changes.devices:
        _tell(jobs, _device(state, change.device, statuses.get(change.device)))
    if changes.rollout is not None:
        _tell(jobs, _rollout(state))


def device(jobs: Iterable[Job], state: RolloutState, name: str, status: agent_pb2.DeviceStatus) -> None:
    """How far a device says it is."""
    _tell(jobs, _device(state, name, status))


def _rollout(state: RolloutState) -> operator_pb2.ApplyEvent:
    progress = operator_pb2.RolloutProgress(
        rollout=state.spec.id,
        state=state.phase.value,
        wave=state.wave,
        waves=len(state.spec.waves),
        reason=state.reason,
    )
    return operator_pb2.ApplyEvent(rollout=progress)


def _device(state: RolloutState, name: str, status: agent_pb2.DeviceStatus | None) -> operator_pb2.ApplyEvent:
    change = state.devices[name]
    shown = status or agent_pb2.DeviceStatus(reason=change.reason)
    progress = operator_pb2.DeviceProgress(device=name, state=change.phase.value, status=shown)
    return operator_pb2.ApplyEvent(device=progress)


def _tell(jobs: Iterable[Job], event: operator_pb2.ApplyEvent) -> None:
    for job in jobs:
        if job.result is None:
            job.say(event)
