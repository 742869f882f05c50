"""What has changed in one rollout since each of those who watch it looked last.

Of a device only the place in the order of changes is kept, and how far along it said it was. A watcher remembers one
number; so one that is slow, or that has left, costs nothing, and finds the rollout as it is when it looks again.
"""

from __future__ import annotations

import asyncio

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.rollout import RolloutState
from edgewright_controller.rollout.model import IN_FLIGHT, DevicePhase


class RolloutNews:
    """News of a rollout that runs; belongs to the event loop of its runner."""

    def __init__(self, state: RolloutState) -> None:
        self.state = state
        self.about = operator_pb2.RolloutView()  # what never changes of it
        self.count = 0  # of changes so far
        self._changed: dict[str, int] = {}  # the newest stands last
        self._progress: dict[str, agent_pb2.DeviceStatus] = {}
        self._news = asyncio.Event()

    @property
    def result(self) -> None:
        """There is always somebody who may come yet."""
        return None

    def say(self, event: operator_pb2.ApplyEvent) -> None:
        """Note what is told of the rollout."""
        self.count += 1
        if event.HasField("device"):
            device = event.device.device
            self._changed.pop(device, None)
            self._changed[device] = self.count
            self._note(device, event.device.status)
        self._news.set()
        self._news = asyncio.Event()

    def _note(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        if self.state.devices[device].phase not in (*IN_FLIGHT, DevicePhase.REVERTING):
            self._progress.pop(device, None)
        elif status.step:
            self._progress[device] = agent_pb2.DeviceStatus(
                step=status.step,
                outcome=status.outcome,
                done_bytes=status.done_bytes,
                total_bytes=status.total_bytes,
                remaining_s=status.remaining_s,
                downloads_paused=status.downloads_paused,
            )

    def progress(self, device: str) -> agent_pb2.DeviceStatus | None:
        """How far a device under way is with it, by its own account; None when it has not said."""
        return self._progress.get(device)

    def since(self, count: int) -> list[str]:
        """The devices that changed after the first `count` changes, the newest last."""
        news = []
        for device, number in reversed(self._changed.items()):
            if number <= count:
                break
            news.append(device)
        return news[::-1]

    async def changed(self, count: int) -> None:
        """Return once there are more than `count` changes."""
        while self.count <= count:
            await self._news.wait()
