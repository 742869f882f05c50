"""What the gateway counts and measures, as one window of telemetry. No prompts, no answers."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum
from statistics import median
from typing import Final

REQUEST_BOUNDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
FIRST_TOKEN_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MAX_SPEEDS: Final = 1000  # of a window, for the median


class End(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    CLIENT_LEFT = "client left"


@dataclass(frozen=True)
class Histogram:
    """`bounds` in seconds, upper-inclusive; `counts` has one entry more."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Usage:
    """What the engine said of one answer; 0 where it said nothing."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    tokens_per_s: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """One window: counters of this window only, `active_requests` at its end."""

    window_s: float
    requests: int
    errors: int
    rejected: int
    prompt_tokens: int
    output_tokens: int
    decode_tokens_per_s: float  # median over the window's requests; 0: none
    request_s: Histogram
    time_to_first_token_s: Histogram
    active_requests: int


@dataclass
class _Counts:
    bounds: tuple[float, ...]
    sum: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def frozen(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.sum)


class Measured:
    """One admitted request. Times are seconds of one monotonic clock."""

    def __init__(self, meter: Meter, now: float) -> None:
        self._meter = meter
        self.began = now
        self.first = 0.0
        self.last = 0.0
        self.pieces = 0

    def piece(self, now: float, events: int) -> None:
        """`events` stream events arrived together."""
        self.first = self.first or now
        self.last = now
        self.pieces += events

    def end(self, now: float, how: End, usage: Usage = Usage()) -> None:
        """The request is over. Exactly once."""
        self._meter._ended(self, now, how, usage)


class Meter:
    """Counts since the last `snapshot`."""

    def __init__(self, now: float) -> None:
        self._active = 0
        self._clear(now)

    def begin(self, now: float) -> Measured:
        """A request was admitted."""
        self._active += 1
        self._requests += 1
        return Measured(self, now)

    def reject(self) -> None:
        """A request was refused before any engine saw it."""
        self._rejected += 1

    def snapshot(self, now: float) -> Snapshot:
        """The window that ends now; the next one begins."""
        taken = Snapshot(
            window_s=now - self._since,
            requests=self._requests,
            errors=self._errors,
            rejected=self._rejected,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            decode_tokens_per_s=median(self._speeds) if self._speeds else 0.0,
            request_s=self._request_s.frozen(),
            time_to_first_token_s=self._first_token_s.frozen(),
            active_requests=self._active,
        )
        self._clear(now)
        return taken

    def _clear(self, now: float) -> None:
        self._since = now
        self._requests = self._errors = self._rejected = 0
        self._prompt_tokens = self._output_tokens = 0
        self._speeds: list[float] = []
        self._request_s = _Counts(REQUEST_BOUNDS)
        self._first_token_s = _Counts(FIRST_TOKEN_BOUNDS)

    def _ended(self, request: Measured, now: float, how: End, usage: Usage) -> None:
        self._active -= 1
        self._errors += how is End.FAILED
        self._prompt_tokens += usage.prompt_tokens
        self._output_tokens += usage.output_tokens or request.pieces
        if how is End.ANSWERED:
            self._request_s.add(now - request.began)
        if request.first:
            self._first_token_s.add(request.first - request.began)
        speed = usage.tokens_per_s
        if not speed and request.pieces > 1 and request.last > request.first:
            speed = (request.pieces - 1) / (request.last - request.first)
        if speed and len(self._speeds) < _MAX_SPEEDS:
            self._speeds.append(speed)
