"""Kills processes with SIGKILL at random moments, and brings them back a little later."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

_LOOK_S: Final = 0.1
_EARLY: Final = 0.05  # of the looks at which somebody may be killed


@dataclass(frozen=True)
class Victim:
    """Something to kill once it is up. `kill` says whether there was anything; `back` only sets it going."""

    kind: str
    weight: float
    up: Callable[[], bool]
    kill: Callable[[], bool]
    back: Callable[[], None]


@dataclass(frozen=True)
class Pauses:
    """From … to. Seconds between two kills, and until what was killed is started again; and how long it lives at
    least, a second aside, as a multiple of what its start took: where everything is slow, nothing gets on otherwise."""

    between_s: tuple[float, float] = (0.3, 1.2)
    down_s: tuple[float, float] = (0.0, 1.5)
    life: tuple[float, float] = (0.5, 4.0)
    most_s: float = 60.0
    """For so long it kills, if it is not told to stop before: then what it kills must get on."""


@dataclass
class _Life:
    """The present one of a victim, in monotonic seconds. `ripe_at` is known once it is up."""

    victim: Victim
    began_at: float
    ripe_at: float | None = None
    back_at: float | None = None  # it is dead


class Killer:
    """Kills on a thread of its own while its context is open; when that closes, everything is on its way back."""

    def __init__(self, victims: Sequence[Victim], chance: random.Random, pauses: Pauses, counted: Counter[str]) -> None:
        """`counted`: kills by kind, to add to."""
        self._chance, self._pauses, self._counted = chance, pauses, counted
        self._lives = [_Life(victim, time.monotonic()) for victim in victims]
        self._stopping = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="killer")

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault from error

    def _run(self) -> None:
        try:
            kill_at = now = time.monotonic()
            end_at = now + self._pauses.most_s
            while not self._stopping.wait(_LOOK_S) and now < end_at:
                now = time.monotonic()
                for life in self._lives:
                    self._look(life, now)
                if now >= kill_at and self._kill(now):
                    kill_at = now + self._chance.uniform(*self._pauses.between_s)
        except BaseException as fault:
            self._fault = fault
        finally:
            for life in self._lives:
                if life.back_at is not None:
                    life.victim.back()

    def _look(self, life: _Life, now: float) -> None:
        if life.back_at is not None:
            if now >= life.back_at:
                life.victim.back()
                life.began_at, life.ripe_at, life.back_at = now, None, None
        elif life.ripe_at is None and life.victim.up():
            life.ripe_at = now + 1.0 + self._chance.uniform(*self._pauses.life) * (now - life.began_at)

    def _kill(self, now: float) -> bool:
        """One of those whose time has come; now and then one that has only begun to start."""
        early = self._chance.random() < _EARLY
        ripe = [
            life
            for life in self._lives
            if life.back_at is None and (early if life.ripe_at is None else now >= life.ripe_at)
        ]
        if not ripe:
            return False
        life = self._chance.choices(ripe, [one.victim.weight for one in ripe])[0]
        if not life.victim.kill():
            return False
        self._counted[life.victim.kind] += 1
        life.back_at = now + self._chance.uniform(*self._pauses.down_s)
        return True
