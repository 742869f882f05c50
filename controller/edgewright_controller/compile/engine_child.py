"""A device's engine, started here for a while, so that an artifact is measured as a device will serve it.

What a child may cost is bounded
as for a build's stages: a clean environment without credentials, a process group of its own, deadlines, and whatever
ends the wait, also cancelling it, ends the whole group first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import aiohttp
import psutil

from edgewright_contract import engine as contract
from edgewright_controller.compile import child, engine_answer
from edgewright_controller.compile.engine_answer import Answer, error_of
from edgewright_controller.compile.engine_words import MAX_LINE, Words
from edgewright_controller.compile.engines_here import Engine, children_folder

_ANSWER_S: Final = 10.0
_POLL_S: Final = 0.05
_WORDS_S: Final = 1.0
_MAX_REPLY: Final = 1 << 20

T = TypeVar("T")


class EngineFailed(Exception):
    """The engine did not start, died, hung or broke the contract; the message has its last line."""


@contextlib.asynccontextmanager
async def started(
    engine: Engine,
    interpreter: str,
    spec: contract.EngineSpec,
    scratch: Path,
    log: BinaryIO,
    *,
    deadline_s: float,
) -> AsyncIterator[EngineChild]:
    """The engine with its model loaded and a token generated; it is gone when the block is left, however that is.

    Its words go to `log`, its temporary files to `scratch`. Raises EngineMissing, EngineFailed, the latter also when
    it is not ready within `deadline_s` seconds.
    """
    script = children_folder() / engine.script
    threads = int(spec.options.get("threads", 1))
    secret = secrets.token_urlsafe(32)
    words = Words(log, secret)
    try:
        process = await asyncio.create_subprocess_exec(
            interpreter,
            str(script),
            "--spec",
            json.dumps(spec.to_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=scratch,
            env=_environment(scratch, threads, secret),
            start_new_session=True,
            limit=MAX_LINE,
        )
    except OSError as error:
        raise EngineFailed(f"engine {engine.name}: {interpreter} cannot be started: {error.strerror}") from error
    running = EngineChild(engine, spec, process, words, secret)
    try:
        async with running.session:
            await running.wait_ready(deadline_s)
            yield running
    finally:
        # Shielded: a second cancellation must not leave a killed child behind.
        await asyncio.shield(running.end())


class EngineChild:
    """A running engine, and what can be asked of it. Every question raises EngineFailed."""

    def __init__(
        self,
        engine: Engine,
        spec: contract.EngineSpec,
        process: asyncio.subprocess.Process,
        words: Words,
        secret: str,
    ) -> None:
        self.engine, self.spec = engine, spec
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {secret}"},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_S),
        )
        self._process, self._words = process, words
        self._ports = contract.Listening(1, 1)
        self._listening = asyncio.ensure_future(self._take_words())

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def wait_ready(self, deadline_s: float) -> None:
        """Until it has generated a token."""
        await self._within(self._become_ready(), deadline_s, "was not ready")

    async def info(self) -> contract.EngineInfo:
        """What runs and on what device, as the runtime says."""
        return await self._ask("/engine/info", contract.info)

    async def memory(self) -> contract.EngineMemory:
        """The memory that it holds now."""
        return await self._ask("/engine/memory", contract.memory)

    def peak_rss_bytes(self) -> int:
        """The most that was ever resident of its process, where the system says so (Linux); else 0."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(lines[0][1]) << 10 if lines else 0

    def processor_s(self) -> float:
        """Seconds of processor that it has taken so far."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error as error:
            raise self._ended() from error
        return float(times.user + times.system)

    async def generate(self, prompt: str, most: int, deadline_s: float) -> Answer:
        """Greedily, at most `most` tokens for a chat of one message, timed as they come in.

        An engine with plain completions is asked for one where the artifact has no chat template.
        """
        document = {"messages": [{"role": "user", "content": prompt}]}
        try:
            return await self._within(self._stream("chat/completions", document, most), deadline_s, "did not answer")
        except _Unanswerable:
            if contract.COMPLETIONS not in self.engine.capabilities:
                raise
        return await self._within(self._stream("completions", {"prompt": prompt}, most), deadline_s, "did not answer")

    async def logits(self, tokens: list[int], deadline_s: float) -> tuple[int, bytes]:
        """(columns, float32 rows, little-endian, one for each token), of an engine with this capability."""
        return await self._within(self._logits(tokens), deadline_s, "gave no logits")

    async def end(self) -> None:
        """End the child and whatever it started. Safe to call twice."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        _, unfinished = await asyncio.wait({self._listening}, timeout=_WORDS_S)
        for task in unfinished:
            task.cancel()

    async def _become_ready(self) -> None:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            await self._last_words()
            raise self._ended()
        try:
            self._ports = contract.listening(json.loads(line))
        except ValueError as error:
            raise self._failed(f"began with {line[:80]!r}: {error}") from error
        while True:
            status, document = await self._get("/engine/ready")
            if status == 200:
                return
            if isinstance(document, dict) and document.get("state") == "failed":
                raise self._failed(f"cannot serve: {error_of(document)}")
            await asyncio.sleep(_POLL_S)

    async def _stream(self, path: str, question: Mapping[str, Any], most: int) -> Answer:
        url = f"http://127.0.0.1:{self._ports.openai_port}/v1/{path}"
        asked = time.monotonic()
        document = engine_answer.question(self.spec.model, question, most)
        async with self.session.post(url, json=document, allow_redirects=False) as response:
            if response.status != 200:
                body = (await response.content.read(_MAX_REPLY)).decode("utf-8", "replace")
                reason = f"/v1/{path} answered {response.status}: {body[:300]}"
                raise self._failed(reason, _Unanswerable if response.status < 500 else EngineFailed)
            try:
                return await engine_answer.read(response.content, asked)
            except engine_answer.BadStream as error:
                raise self._failed(f"/v1/{path}: {error}") from error

    async def _logits(self, tokens: list[int]) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self._ports.port}/engine/logits"
        async with self.session.post(url, json={"tokens": tokens}) as response:
            data = await response.read()
            if response.status != 200:
                raise self._failed(f"/engine/logits answered {response.status}: {data[:300]!r}")
            columns = response.headers.get("Edgewright-Columns", "")
        if not columns.isdigit() or len(data) != 4 * int(columns) * len(tokens):
            raise self._failed(f"/engine/logits gave {len(data)} bytes for {len(tokens)} tokens")
        return int(columns), data

    async def _ask(self, path: str, read: Callable[[Any], T]) -> T:
        status, document = await self._within(self._get(path), _ANSWER_S, f"did not answer {path}")
        if status != 200:
            raise self._failed(f"{path} answered {status}: {error_of(document)}")
        try:
            return read(document)
        except contract.EngineReplyError as error:
            raise self._failed(f"{path}: {error}") from error

    async def _get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"http://127.0.0.1:{self._ports.port}{path}", allow_redirects=False) as response:
            body = await response.content.read(_MAX_REPLY)
            try:
                return response.status, json.loads(body)
            except ValueError as error:
                raise self._failed(f"{path} answered {body[:80]!r}") from error

    async def _within(self, asked: Awaitable[T], deadline_s: float, failing: str) -> T:
        """The answer, unless the deadline passes or the child ends first."""
        try:
            async with asyncio.timeout(deadline_s):
                return await asked
        except TimeoutError as error:
            raise self._failed(f"{failing} within {deadline_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            # A broken connection comes before the end that broke it is known.
            await self._last_words()
            raise (self._ended() if self._process.returncode is not None else self._failed(repr(error))) from error

    async def _last_words(self) -> None:
        """Give a child that is about to end the time to say why and to be seen to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WORDS_S):
                await asyncio.shield(self._listening)
                await self._process.wait()

    async def _take_words(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(1 << 14):
            self._words.add(data)

    def _ended(self) -> EngineFailed:
        code = self._process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return self._failed(f"died of {signal.Signals(-code).name}")
        return self._failed("ended" if code is None else f"ended with exit code {code}")

    def _failed(self, reason: str, kind: type[EngineFailed] = EngineFailed) -> EngineFailed:
        last = f"; it last said: {self._words.last}" if self._words.last else ""
        return kind(f"engine {self.engine.name} {reason}{last}")


class _Unanswerable(EngineFailed):
    """The engine runs, and refuses the question."""


def _environment(scratch: Path, threads: int, secret: str) -> dict[str, str]:
    numeric = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    own = {"LLAMA_OFFLINE": "1", "PYTHONUNBUFFERED": "1", contract.SECRET_VARIABLE: secret}
    return child.environment(scratch, threads) | numeric | own


def spec_of(
    runtime: str, artifact: Path, *, accelerator: str = "cpu", threads: int, context: int
) -> contract.EngineSpec:
    """What to serve, under a name of no meaning, with these options alone."""
    options = {"threads": threads, "context": context}
    return contract.EngineSpec(runtime, str(artifact), "measured", accelerator, options)
