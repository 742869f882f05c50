"""Running one build stage: a child process with its own interpreter, watched until it has ended.

The toolchain's pins, leaks and crashes stay in the child. It gets a clean environment without credentials, its own
process group, a deadline; whatever ends the wait, also cancelling it, kills the whole group before `run` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

CHILDREN: Final = Path(__file__).parent / "children"
MAX_LINE_BYTES: Final = 1 << 20
MAX_LOG_BYTES: Final = 8 << 20
LAST_LINES: Final = 12
READ_BYTES: Final = 64 << 10

# What a toolchain needs of the controller's environment: where programs and libraries are, and nothing else.
_PASSED_ON: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "LANG",
    "SYSTEMROOT",
    "WINDIR",
    "OPENBLAS_CORETYPE",
)

Say = Callable[[float, str], None]


class StageFailed(Exception):
    """A stage ended without a result. `exit` is its status, negative for a signal, None when it was stopped."""

    def __init__(self, stage: str, reason: str, exit_status: int | None, last_lines: tuple[str, ...]) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.exit = exit_status
        self.last_lines = last_lines


@dataclass(frozen=True)
class Stage:
    """A script of children/, the interpreter to run it under, and its deadline in seconds."""

    name: str
    interpreter: str
    deadline_s: float
    threads: int = 1

    @property
    def script(self) -> Path:
        """The file that is run."""
        return CHILDREN / f"{self.name}.py"


def environment(scratch: Path, threads: int) -> dict[str, str]:
    """The child's whole environment: nothing is looked up, reported, or kept outside `scratch`."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed | {
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "TEMP": str(scratch),
        "HF_HOME": str(scratch / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # Olive looks up its telemetry host with the first of these alone; CI stops that too.
        "OLIVE_DISABLE_TELEMETRY": "1",
        "CI": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        # The order of a set of strings must not reach the bytes of an artifact.
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
    }


async def run(stage: Stage, request: Mapping[str, Any], scratch: Path, log: BinaryIO, say: Say) -> dict[str, Any]:
    """Run the stage to its end; returns its result. Its words go to `log`, its progress to `say`.

    Raises StageFailed. When cancelled, or past the deadline, the whole process group is killed first.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            stage.interpreter,
            str(stage.script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=scratch,
            env=environment(scratch, stage.threads),
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
    except OSError as error:
        raise StageFailed(stage.name, f"{stage.interpreter} cannot be started: {error.strerror}", None, ()) from error
    words = _Words(log)
    reports = _Reports(say)
    try:
        async with asyncio.timeout(stage.deadline_s):
            await _talk(process, request, reports, words)
    except TimeoutError as error:
        reason = f"not finished after {stage.deadline_s:.0f} s"
        raise StageFailed(stage.name, reason, None, words.last()) from error
    finally:
        await _end(process)
    if process.returncode != 0 or reports.result is None:
        reason = reports.failed or _ending(process.returncode)
        raise StageFailed(stage.name, reason, process.returncode, words.last())
    return reports.result


async def _talk(
    process: asyncio.subprocess.Process, request: Mapping[str, Any], reports: _Reports, words: _Words
) -> None:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    # Standard input stays open after the request: its end tells the child that the controller is gone.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
    async with asyncio.TaskGroup() as both:
        both.create_task(_read(process.stdout, reports.add))
        both.create_task(_read(process.stderr, words.add))
        await process.wait()
        # Something that the stage left behind would hold the pipes open.
        _kill(process)
    words.flush()


async def _read(stream: asyncio.StreamReader, add: Callable[[bytes], None]) -> None:
    while data := await stream.read(READ_BYTES):
        add(data)


class _Reports:
    """JSON lines of a stage, taken apart. What is not a line of ours is left aside: the exit status decides."""

    def __init__(self, say: Say) -> None:
        self.result: dict[str, Any] | None = None
        self.failed = ""
        self._say = say
        self._rest = b""

    def add(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:MAX_LINE_BYTES]
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:
                continue
            if not isinstance(report, dict):
                continue
            if isinstance(report.get("result"), dict):
                self.result = report["result"]
            elif "failed" in report:
                self.failed = str(report["failed"])[:2000]
            elif isinstance(report.get("done"), int | float):
                self._say(min(max(float(report["done"]), 0.0), 1.0), str(report.get("say", ""))[:200])


class _Words:
    """What the toolchain prints: into the log up to a size, and the last lines kept to be shown.

    A progress bar draws itself again after a carriage return; only its last state is a line.
    """

    def __init__(self, log: BinaryIO) -> None:
        self._log = log
        self._left = MAX_LOG_BYTES
        self._rest = b""
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def add(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest.rpartition(b"\r")[2][-READ_BYTES:]
        for line in lines:
            self._line(line.rstrip(b"\r").rpartition(b"\r")[2])

    def flush(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def last(self) -> tuple[str, ...]:
        return tuple(self._last)

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        self._last.append(line.decode("utf-8", "replace")[:500])
        if self._left > 0:
            self._left -= len(line) + 1
            self._write(line + b"\n" if self._left > 0 else b"[the log ends here: it has reached its size]\n")

    def _write(self, line: bytes) -> None:
        try:
            self._log.write(line)
        except OSError as error:
            # A full disk ends the stage itself; its words must still be read, or it would wait for us for ever.
            self._left = 0
            self._last.append(f"[the log cannot be written: {error.strerror}]")


def _ending(status: int | None) -> str:
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with status {status} and no result"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _kill(process)
    # Shielded: a second cancellation must not leave a killed child unreaped.
    await asyncio.shield(asyncio.ensure_future(process.wait()))
    if process.stdin:
        process.stdin.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            # The group lives on while any of its members does, so its id is still ours.
            os.killpg(process.pid, signal.SIGKILL)
