"""What became of each build: `<key>.json` beside its log, so that it is told after a restart too, and the next build's
time can be estimated. The oldest logs beyond a budget are removed, with their records.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgewright_contract import digest, durable
from edgewright_controller.compile import redaction
from edgewright_controller.compile.build_estimate import PastBuild

LOGS_BYTES: Final = 256 << 20
MAX_RECORD_BYTES: Final = 64 << 10
MAX_REASON: Final = 4000
MAX_TAIL_BYTES: Final = 256 << 10
MAX_TAIL_LINES: Final = 1000

RUNNING: Final = "running"
BUILT: Final = "built"
FAILED: Final = "failed"
STOPPED: Final = "stopped"


@dataclass(frozen=True)
class BuildRecord:
    """One build. `state` is one of the above, `reason` why it failed, times are Unix milliseconds, `stages` the seconds
    of each stage in order."""

    key: str
    model: str
    runtime: str
    quantization: str
    recipe: str
    source_bytes: int
    began_ms: int
    ended_ms: int = 0
    state: str = RUNNING
    reason: str = ""
    artifact: str = ""
    stages: tuple[tuple[str, float], ...] = ()


class BuildRecords:
    """The folder STATE/builds. What was running when the controller ended is told as stopped."""

    def __init__(self, folder: Path, logs_bytes: int = LOGS_BYTES) -> None:
        """Open the folder, made if absent. Raises OSError."""
        self._folder, self._logs_bytes = folder, logs_bytes
        durable.make_folder(folder)
        self._records: dict[str, BuildRecord] = {}
        for file in folder.glob("*.json"):
            record = _read(file)
            if record is not None and file.stem == record.key:
                self._records[record.key] = replace(record, state=STOPPED) if record.state == RUNNING else record

    def begin(self, record: BuildRecord) -> None:
        """A build begins; an earlier one with this key is forgotten."""
        self._put(record)

    def end(self, key: str, **changes: Any) -> None:
        """It has ended: with these fields. Old logs are removed then."""
        found = replace(self._records[key], **changes)
        self._put(replace(found, reason=redaction.redacted(found.reason)[:MAX_REASON]))
        self._trim()

    def newest_first(self) -> list[BuildRecord]:
        """All that is known."""
        return sorted(self._records.values(), key=lambda record: record.began_ms, reverse=True)

    def past(self) -> list[PastBuild]:
        """Those that succeeded, in the order of time."""
        return [
            PastBuild(one.runtime, one.quantization, one.source_bytes, one.stages)
            for one in reversed(self.newest_first())
            if one.state == BUILT and one.stages
        ]

    def log_tail(self, key: str, lines: int) -> list[str]:
        """The last lines of the build's log, at most MAX_TAIL_LINES, without what looks like a credential. Raises
        OSError, also when the log is not kept any more."""
        with (self._folder / f"{key}.log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_TAIL_BYTES))
            text = file.read(MAX_TAIL_BYTES).decode("utf-8", "replace")
        whole = text.splitlines()[1 if size > MAX_TAIL_BYTES else 0 :]
        return [redaction.redacted(line) for line in whole[-min(lines, MAX_TAIL_LINES) :]]

    def _put(self, record: BuildRecord) -> None:
        self._records[record.key] = record
        durable.write(self._folder / f"{record.key}.json", json.dumps(asdict(record)).encode())

    def _trim(self) -> None:
        total = 0
        for record in self.newest_first():
            log = self._folder / f"{record.key}.log"
            total += log.stat().st_size if log.exists() else 0
            if total > self._logs_bytes and record.state != RUNNING:
                log.unlink(missing_ok=True)
                (self._folder / f"{record.key}.json").unlink(missing_ok=True)
                del self._records[record.key]


class StageClock:
    """Times the stages of one build from what it says; waiting for room is not part of any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stages: list[tuple[str, float]] = []
        self._current = ""
        self._since = 0.0

    def heard(self, stage: str, *, waits: bool) -> float:
        """A report; returns for how many seconds this stage runs."""
        now = self._clock()
        if stage != self._current:
            self._close(now)
            self._current, self._since = stage, now
        if waits:
            self._since = now
        return now - self._since

    def stages(self) -> tuple[tuple[str, float], ...]:
        """Every stage that was heard of, the last one until now."""
        self._close(self._clock())
        self._current = ""
        return tuple(self._stages)

    def _close(self, now: float) -> None:
        if self._current:
            self._stages.append((self._current, round(now - self._since, 2)))


def _read(file: Path) -> BuildRecord | None:
    """None for what is no record, such as another file of the folder: it is then not listed."""
    try:
        if not digest.is_sha256(file.stem) or file.stat().st_size > MAX_RECORD_BYTES:
            return None
        document = json.loads(file.read_bytes())
        stages: Sequence[Any] = document.pop("stages")
        return BuildRecord(**document, stages=tuple((str(name), float(seconds)) for name, seconds in stages))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
