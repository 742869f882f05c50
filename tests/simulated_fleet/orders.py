"""What simulated devices are told: how long an act takes, where an update fails, when to fall silent.

The test writes one JSON file, and every process of devices reads it before each act: what was ordered outlives both.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from edgewright_contract import durable

FILE: Final = "orders.json"
LOOK_S: Final = 0.1  # how soon new orders are noticed


@dataclass(frozen=True)
class Orders:
    """Of one device. Acts go by the names of `lifecycle_state.Act`: "plan", "download", …, "drain"."""

    act_s: float = 0.0
    """Seconds that each act of an update takes, besides what it really does."""
    acts_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the acts that are named, instead."""
    fails_at: str = ""
    """The act of which every update dies, by the release's own fault: up to "probe"."""
    holds_at: str = ""
    """The act that does not end while this stands."""
    silent: bool = False
    """Switched off: asks nothing, answers nothing."""
    refuses: bool = False
    """Believes no new metadata."""
    clock_ahead_s: float = 0.0
    """By how much its clock is before this machine's, when it judges metadata."""
    breaks: str = ""
    """The release (digest) whose engine dies for good while it serves: the device falls back to the one before."""
    requests: int = 20
    """Requests that it answers in a window of telemetry, each of `speed` tokens a second."""
    errors: int = 0
    """How many of them fail."""
    speed: float = 40.0
    worse: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Release (digest) → `errors` and `speed` while it is the active one, instead."""

    def takes(self, act: str) -> float:
        """Seconds of this act."""
        return self.acts_s.get(act, self.act_s)

    def measured(self, release: str) -> tuple[int, float]:
        """Errors in a window, and tokens a second, while `release` serves."""
        worse = self.worse.get(release, {})
        return int(worse.get("errors", self.errors)), worse.get("speed", self.speed)


_NAMES: Final = frozenset(one.name for one in fields(Orders))


class OrderBook:
    """The file in `folder`: orders by device, and the others' under the empty name."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = float("-inf")
        self._read: dict[str, Orders] = {}

    def write(self, others: Orders, by_device: Mapping[str, Orders] | None = None) -> None:
        """From now on, these and nothing else."""
        document = {"": others, **(by_device or {})}
        text = json.dumps({device: asdict(orders) for device, orders in document.items()})
        durable.write(self._path, text.encode())

    def of(self, device: str) -> Orders:
        """What this device is told now."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S / 2:  # a thousand devices look at one file
            return self._read.get(device, self._read[""])
        self._looked_at = now
        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp != self._seen:
            self._read = {name: _orders(one) for name, one in json.loads(self._path.read_bytes()).items()}
            self._seen = stamp
        return self._read.get(device, self._read[""])


async def until(orders: Callable[[], Orders], holds: Callable[[Orders], bool]) -> None:
    """Wait until what is told is of this kind. It comes by a file, so it is looked at again and again."""
    while not holds(orders()):  # noqa: ASYNC110 no event comes from a file
        await asyncio.sleep(LOOK_S)


def _orders(document: dict[str, Any]) -> Orders:
    if unknown := set(document) - _NAMES:
        raise ValueError(f"{FILE}: {sorted(unknown)} is nothing that a device can be told")
    return Orders(**document)
