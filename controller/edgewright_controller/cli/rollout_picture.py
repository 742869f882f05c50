"""What a stream of events has told of one rollout so far. Values in, values out; a clock is an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli.device_signs import BAD, UNDER_WAY


@dataclass(frozen=True)
class Wave:
    """One wave as it stands, or several, from `number` to `last`. `names` in the order of the rollout."""

    number: int
    last: int
    what: str
    then: str
    names: tuple[str, ...]
    counts: Counter[str]


@dataclass(frozen=True)
class Failure:
    """Devices on which it went wrong for the same reason; the newest first."""

    state: str
    reason: str
    devices: tuple[str, ...]


@dataclass
class Picture:
    """The newest of everything. `told_at` is when `rollout` was told, by the clock of whoever calls `take`."""

    rollout: operator_pb2.RolloutProgress = field(default_factory=operator_pb2.RolloutProgress)
    told_at: float = 0.0
    devices: dict[str, operator_pb2.DeviceProgress] = field(default_factory=dict)
    result: operator_pb2.ApplyResult | None = None
    _waves: dict[int, operator_pb2.WaveView] = field(default_factory=dict)
    _names: dict[int, dict[str, None]] = field(default_factory=dict)
    _failed: dict[str, None] = field(default_factory=dict)  # the newest last

    def take(self, event: operator_pb2.ApplyEvent, now: float) -> None:
        """Remember what the event says, at `now` seconds of a clock that only rises."""
        if event.HasField("rollout"):
            if event.rollout.rollout != self.rollout.rollout:
                self._another()
            self.rollout, self.told_at = event.rollout, now
            self._waves.update((view.number, view) for view in event.rollout.wave_views)
        elif event.HasField("device"):
            self._device(event.device)
        elif event.HasField("devices"):
            for device in event.devices.devices:
                self._device(device)
        elif event.HasField("result"):
            self.result = event.result

    def _another(self) -> None:
        self.devices, self._waves, self._names, self._failed = {}, {}, {}, {}

    def _device(self, device: operator_pb2.DeviceProgress) -> None:
        before = self.devices.get(device.device)
        if before is not None and device.state in UNDER_WAY and not device.status.step:
            device.status.MergeFrom(before.status)  # how far it was; only its state is news
        self.devices[device.device] = device
        self._names.setdefault(device.wave, {})[device.device] = None
        if device.state in BAD:
            if before is None or before.state != device.state:
                self._failed.pop(device.device, None)
            self._failed[device.device] = None
        else:
            self._failed.pop(device.device, None)

    def waves(self) -> list[Wave]:
        """All waves, the first first."""
        waves = []
        for number in sorted(self._names):
            names, view = tuple(self._names[number]), self._waves.get(number, operator_pb2.WaveView())
            counts = Counter(self.devices[name].state for name in names)
            waves.append(Wave(number, number, view.what, view.then, names, counts))
        return waves

    def counts(self) -> Counter[str]:
        """How many devices stand where."""
        return Counter(device.state for device in self.devices.values())

    def under_way(self) -> list[operator_pb2.DeviceProgress]:
        """Devices that have said how far they are, in the order of the rollout."""
        return [one for one in self.devices.values() if one.state in UNDER_WAY and one.status.step]

    def failures(self) -> list[Failure]:
        """What went wrong, each reason once, the newest first."""
        grouped: dict[tuple[str, str], list[str]] = {}
        for name in reversed(self._failed):
            device = self.devices[name]
            grouped.setdefault((device.state, device.reason or device.status.reason), []).append(name)
        return [Failure(state, reason, tuple(names)) for (state, reason), names in grouped.items()]

    def elapsed_s(self, now: float) -> float:
        """Seconds since it began, by the controller's clock until it last spoke, then by the caller's."""
        view = self.rollout.view
        if not view.created_unix_ms:
            return 0.0
        if view.ended_unix_ms:
            return max(0.0, (view.ended_unix_ms - view.created_unix_ms) / 1000)
        return max(0.0, (view.now_unix_ms - view.created_unix_ms) / 1000 + now - self.told_at)

    def waits_s(self, now: float) -> float:
        """Seconds until what it waits for comes by itself; 0 when nobody knows, or when it is due."""
        left = self.rollout.view.waits_s
        return max(0.0, left - (now - self.told_at)) if left else 0.0


def merged(waves: Iterable[Wave]) -> Wave:
    """Several waves as one row."""
    several = list(waves)
    if len(several) == 1:
        return several[0]
    counts: Counter[str] = sum((wave.counts for wave in several), Counter())
    names = tuple(name for wave in several for name in wave.names)
    return Wave(several[0].number, several[-1].last, "", "", names, counts)
