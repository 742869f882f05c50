"""Running one build stage: a child process with its own interpreter, watched until it has ended.

The toolchain's pins, leaks and crashes stay in the child. It gets a clean environment without credentials, its own
process group, a deadline and bytes that it may hold; whatever ends the wait, also cancelling it, kills the whole group
before `run` returns.
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
from typing import Any, BinaryIO, Final, cast

from edgewright_controller.compile import child_memory

CHILDREN: Final = Path(__file__).parent / "children"
MAX_LINE_BYTES: Final = 1 << 20
MAX_LOG_BYTES: Final = 8 << 20
LAST_LINES: Final = 12
MAX_SHOWN_BYTES: Final = 64 << 10
SIGKILL: Final = 9  # signal.SIGKILL is not there on Windows
# Between two looks at what the child holds; it can outgrow its bounds by what it takes in that time.
LOOK_S: Final = 0.5

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

# What a stage that fetches needs besides: the way out of a company's network, its authorities, its own hub.
_PASSED_ON_TO_FETCH: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HF_ENDPOINT"),
)
_OFFLINE: Final = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")

Say = Callable[[float, str], None]
# Told, now and then, how many bytes the stage holds.
Holds = Callable[[int], None]


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
    """A script that speaks as children/stage.py says, the interpreter to run it under, its deadline in seconds, and
    the bytes that it and what it starts may hold, None for any number. Only what `fetches` may ask a network."""

    script: Path
    interpreter: str
    deadline_s: float
    threads: int = 1
    most_bytes: int | None = None
    fetches: bool = False

    @property
    def name(self) -> str:
        """The stage's name in messages."""
        return self.script.stem


def environment(scratch: Path, threads: int, *, fetches: bool = False) -> dict[str, str]:
    """The child's whole environment: nothing is looked up, reported, or kept outside `scratch`. One that `fetches`
    may ask where the manifest says, with nothing but what its request holds."""
    wanted = (*_PASSED_ON, *_PASSED_ON_TO_FETCH) if fetches else _PASSED_ON
    passed = {name: os.environ[name] for name in wanted if name in os.environ}
    found = passed | {
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
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        # A download over the hub's second protocol begins anew after a cut.
        "HF_HUB_DISABLE_XET": "1",
    }
    return {name: value for name, value in found.items() if not (fetches and name in _OFFLINE)}


async def run(
    stage: Stage,
    request: Mapping[str, Any],
    scratch: Path,
    log: BinaryIO,
    say: Say,
    *,
    holds: Holds = lambda _bytes: None,
) -> dict[str, Any]:
    """Run the stage to its end; returns its result. Its words go to `log`, its progress to `say`.

    Raises StageFailed. When cancelled, or past one of its bounds, the whole process group is killed first.
    """
    words, reports = _Words(log), _Reports(say)
    loop = asyncio.get_running_loop()
    oom_kills = child_memory.oom_kills()
    try:
        transport, watch = await loop.subprocess_exec(
            lambda: _Watch(loop.create_future(), reports, words),
            stage.interpreter,
            str(stage.script),
            cwd=scratch,
            env=environment(scratch, stage.threads, fetches=stage.fetches),
            start_new_session=True,
        )
    except OSError as error:
        raise StageFailed(stage.name, f"{stage.interpreter} cannot be started: {error.strerror}", None, ()) from error
    looks = _Looks(stage.most_bytes, holds)
    try:
        watch.ask(request)
        async with asyncio.timeout(stage.deadline_s):
            await looks.until(watch.ended, transport)
    except TimeoutError as error:
        reason = f"not finished after {stage.deadline_s:.0f} s; `stage_deadline` under [builds] gives it longer"
        raise StageFailed(stage.name, reason, None, words.last()) from error
    finally:
        if transport.get_returncode() is None:
            _kill(transport)
        # Shielded: a second cancellation must not leave a killed child behind.
        await asyncio.shield(watch.ended)
        transport.close()
    words.flush()
    status = transport.get_returncode()
    if status == 0 and reports.result is not None:
        return reports.result
    reason = reports.failed or _ending(status)
    if looks.past:
        reason = f"needed more than {stage.most_bytes:,} bytes of memory; `stage_memory` under [builds] allows it more"
    elif status == -SIGKILL:
        reason = killed(looks.held_bytes, oom_kills, child_memory.oom_kills())
    raise StageFailed(stage.name, reason, status, words.last())


class _Looks:
    """Looks at what a stage holds until it has ended, and kills it when that is more than it may hold."""

    def __init__(self, most_bytes: int | None, holds: Holds) -> None:
        self.held_bytes = 0
        self.past = False
        self._most_bytes, self._holds = most_bytes, holds

    async def until(self, ended: asyncio.Future[None], transport: asyncio.SubprocessTransport) -> None:
        while not (await asyncio.wait([ended], timeout=LOOK_S))[0]:
            # In a thread: it reads a file for each process of the system.
            self.held_bytes = await asyncio.to_thread(child_memory.held_bytes, transport.get_pid()) or self.held_bytes
            self._holds(self.held_bytes)
            if self._most_bytes is not None and self.held_bytes > self._most_bytes and not self.past:
                self.past = True
                _kill(transport)


class _Watch(asyncio.SubprocessProtocol):
    """Hands on what the stage writes. `ended` is done when it has exited and everything it wrote was taken."""

    def __init__(self, ended: asyncio.Future[None], reports: _Reports, words: _Words) -> None:
        self.ended = ended
        self._takers = {1: reports.add, 2: words.add}
        self._transport: asyncio.SubprocessTransport | None = None

    def ask(self, request: Mapping[str, Any]) -> None:
        # Standard input stays open after the request: its end tells the child that the controller is gone.
        self._standard_input().write(json.dumps(request).encode() + b"\n")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._takers[fd](data)

    def process_exited(self) -> None:
        assert self._transport
        # What the stage left running would hold its pipes open.
        _kill(self._transport)
        self._standard_input().close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)

    def _standard_input(self) -> asyncio.WriteTransport:
        assert self._transport
        return cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))


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
        self._rest = rest.rpartition(b"\r")[2][-MAX_SHOWN_BYTES:]
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


def killed(held_bytes: int, oom_kills: int | None, now: int | None) -> str:
    """Why a stage was killed that we did not kill: by a person, or by the system that had no memory left. Pure.

    `oom_kills` and `now`: what `child_memory.oom_kills` said before the stage and after it."""
    held = f"when it held {held_bytes:,} bytes of memory" if held_bytes else "before it was looked at"
    advice = "let fewer stages run at once with `memory` under [builds], or build on a larger machine"
    if now is None:
        return f"killed by SIGKILL {held}; if the system had no memory left: {advice}"
    if now != oom_kills:
        return f"the system killed it for want of memory, {held}; {advice}"
    return f"killed by SIGKILL from outside, {held}; the system did not do it for want of memory"


def _kill(transport: asyncio.SubprocessTransport) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            transport.kill()
        else:
            # The group lives on while any of its members does, so its id is still ours.
            os.killpg(transport.get_pid(), signal.SIGKILL)
