"""What those who follow a rollout are told of it, in the wire's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.rollout import Changes
from edgewright_controller.service import rollout_views
from edgewright_controller.service.rollout_news import RolloutNews

Statuses = Mapping[str, agent_pb2.DeviceStatus]


class Follower(Protocol):
    """Somebody who is told of a rollout: a job, until it has its result, or those who watch."""

    @property
    def result(self) -> operator_pb2.ApplyResult | None:
        """None while there is more to be told."""

    def say(self, event: operator_pb2.ApplyEvent, /) -> None:
        """Hear of it. Never blocks."""


def standing(follower: Follower, news: RolloutNews) -> None:
    """How it all stands, to somebody who just came."""
    follower.say(_rollout(news))
    devices = rollout_views.device_progress(news.state, list(news.state.targets))
    follower.say(operator_pb2.ApplyEvent(devices=operator_pb2.DevicesProgress(devices=devices)))


def changed(followers: Iterable[Follower], news: RolloutNews, changes: Changes, statuses: Statuses) -> None:
    """What has changed. `statuses`: what devices said of it just now."""
    for change in changes.devices:
        device(followers, news, change.device, statuses.get(change.device))
    if changes.rollout is not None:
        _tell(followers, _rollout(news))


def device(followers: Iterable[Follower], news: RolloutNews, name: str, status: agent_pb2.DeviceStatus | None) -> None:
    """How far a device is; `status`: by its own account."""
    (progress,) = rollout_views.device_progress(news.state, [name])
    progress.status.CopyFrom(status or agent_pb2.DeviceStatus(reason=progress.reason))
    _tell(followers, operator_pb2.ApplyEvent(device=progress))


def _rollout(news: RolloutNews) -> operator_pb2.ApplyEvent:
    # As of the last step: whoever is told of a change is told right after it.
    progress = rollout_views.progress(news.state, news.state.clock.wall, news.about, with_waves=True)
    return operator_pb2.ApplyEvent(rollout=progress)


def _tell(followers: Iterable[Follower], event: operator_pb2.ApplyEvent) -> None:
    for follower in followers:
        if follower.result is None:
            follower.say(event)
