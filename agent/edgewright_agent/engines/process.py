"""One engine as a child process: started, watched, asked, stopped.

The agent never loads a model itself. A child that aborts, leaks or hangs is replaced, and its end is the only
dependable way to get its memory back.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from edgewright_agent.engines import catalogue, reply
from edgewright_agent.engines.child_log import ChildLog
from edgewright_agent.engines.confinement import UNCONFINED, Confinement, Launch
from edgewright_agent.engines.environment import engine_environment
from edgewright_contract import engine as contract

STOP_GRACE_S: Final = 5.0
_LISTEN_S: Final = 60.0  # an interpreter that imports a large runtime from a slow card
_ASK_S: Final = 10.0
_POLL_S: Final = 0.1  # while loading only; a ready engine is never polled
_LAST_WORDS_S: Final = 1.0
_MAX_REPLY: Final = 1 << 20
_MAX_LINE: Final = 1 << 16

T = TypeVar("T")


class EngineFailed(Exception):
    """The engine did not start, died, hung or broke the contract. `last_lines` are the end of its log."""

    def __init__(self, reason: str, last_lines: tuple[str, ...] = ()) -> None:
        self.reason = reason
        self.last_lines = last_lines
        super().__init__(f"{reason}; it last said: {last_lines[-1]}" if last_lines else reason)


class _Exits(asyncio.subprocess.SubprocessStreamProtocol):
    """Knows of the child's end at once. From Python 3.11 on `Process.wait` waits until its pipes are closed too, and
    a process that the child left behind may hold them open for ever."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=_MAX_LINE, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class EngineProcess:
    """A running child and the two ways to talk to it. Made by `start`; must be stopped with `stop`."""

    def __init__(
        self,
        name: str,
        spec: contract.EngineSpec,
        transport: asyncio.SubprocessTransport,
        protocol: _Exits,
        *,
        log: ChildLog,
        secret: str,
        launch: Launch,
    ) -> None:
        self.name = name
        self.spec = spec
        self.log = log
        self.started_at = time.monotonic()
        self._transport, self._exited = transport, protocol.exited
        self._process = asyncio.subprocess.Process(transport, protocol, asyncio.get_running_loop())
        self._stopping = False
        self._launch = launch
        self._url = ""
        self._openai_url = ""
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {secret}"},
            # No kept connections: llama.cpp's server closes them after a stream, and a POST that meets such a
            # closing is neither answered nor repeated. On loopback a new one costs less than a token.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_ASK_S),
            auto_decompress=False,
        )
        self._pump = asyncio.ensure_future(self._read_log())

    @classmethod
    async def start(
        cls,
        spec: contract.EngineSpec,
        settings: catalogue.EngineSettings,
        log: Path,
        *,
        confinement: Confinement = UNCONFINED,
        deadline_s: float = _LISTEN_S,
        capability: str = "",
    ) -> EngineProcess:
        """A child that listens; it is still loading. Raises EngineMissing, EngineFailed."""
        engine = await asyncio.to_thread(catalogue.find, spec.runtime, settings, capability)
        secret = secrets.token_urlsafe(32)
        options = {"threads": settings.threads, **spec.options}
        threads = options["threads"]
        if not isinstance(threads, int) or threads < 1:
            raise EngineFailed(f"the release's option threads: {threads!r} is not a number of threads")
        told = replace(spec, options=options)
        environment = engine_environment(os.environ, secret, threads)
        try:
            launch = await asyncio.to_thread(confinement.prepare, engine, settings, told, environment)
        except OSError as error:
            raise EngineFailed(f"engine {engine.name} cannot be confined: {error}") from error
        loop = asyncio.get_running_loop()
        try:
            # From the thread that lives as long as the agent: the kernel ends the child with the thread it is of.
            transport, protocol = await loop.subprocess_exec(
                lambda: _Exits(loop),
                *launch.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=launch.environment,
                pass_fds=launch.handles,
                start_new_session=True,
            )
        except OSError as error:
            launch.close()
            raise EngineFailed(f"engine {engine.name} did not start: {error}") from error
        except BaseException:
            launch.close()
            raise
        launch.started()
        self = cls(engine.name, spec, transport, protocol, log=ChildLog(log, secret), secret=secret, launch=launch)
        try:
            await self._listen(deadline_s)
        except BaseException:
            await self.stop(0)
            raise
        return self

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child has not ended."""
        return self._process.returncode is None

    @property
    def unconfined(self) -> tuple[str, ...]:
        """What this child is not kept from, by name."""
        return self._launch.unconfined

    @property
    def openai_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`, for `session`."""
        return self._openai_url

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP client that bears the child's secret."""
        return self._session

    @property
    def model(self) -> str:
        """The name under which the child serves."""
        return self.spec.model

    async def wait_ready(self, deadline_s: float) -> None:
        """Return once the engine has generated a token. Raises EngineFailed, also after `deadline_s` seconds."""
        await self._before_exit(self._poll_ready(), deadline_s, "was not ready")

    async def answers(self, deadline_s: float) -> None:
        """Have one token generated now. Raises EngineFailed: the engine hangs, or is gone."""
        status, document = await self._before_exit(
            self._get("/engine/ready?token=now", deadline_s), deadline_s, "generated no token"
        )
        if status != 200:
            raise self._failed(f"engine {self.name} generated no token: {_error_of(document)}")

    async def info(self) -> contract.EngineInfo:
        """What runs and on what, as the runtime says. Raises EngineFailed."""
        return await self._ask("/engine/info", contract.info)

    async def memory(self) -> contract.EngineMemory:
        """The memory that the child holds. Raises EngineFailed."""
        return await self._ask("/engine/memory", contract.memory)

    async def wait(self) -> int:
        """The child's exit code, once it has ended and its last words are read; negative: killed by that signal."""
        await self._exited.wait()
        await asyncio.wait({self._pump}, timeout=_LAST_WORDS_S)
        code = self._process.returncode
        assert code is not None
        return code

    async def ends_within(self, seconds: float) -> bool:
        """Whether the child has ended, or does so within `seconds`. A broken connection comes before the end that
        broke it is known."""
        ended = asyncio.ensure_future(self.wait())
        await asyncio.wait({ended}, timeout=seconds)
        ended.cancel()
        return not self.running

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the child and whatever it started: politely, after `grace_s` seconds by force. Safe to call twice."""
        self._stopping = True
        if self._process.stdin is not None:
            self._process.stdin.close()  # this alone ends a well-behaved child
        if self.running and grace_s > 0:
            self._signal(signal.SIGTERM)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._exited.wait(), grace_s)
        self._kill()  # the group: the child may be gone and have left a process of its own
        await self._exited.wait()
        await self._session.close()
        # A grandchild that left the group could hold the pipe open for ever.
        _, unfinished = await asyncio.wait({self._pump}, timeout=_LAST_WORDS_S)
        for task in unfinished:
            task.cancel()
        self._transport.close()
        await asyncio.to_thread(self._launch.close)

    def kill(self) -> None:
        """End the child and its group at once. Who waits for it is woken; `stop` is still due."""
        self._kill()

    def exit_reason(self) -> str:
        """How the child ended, for a person."""
        code = self._process.returncode
        if code is None:
            return f"engine {self.name} is running"
        beyond = self._launch.out_of_memory(self.log.last_lines())
        if beyond:
            return f"engine {self.name} ended: {beyond}"
        if code < 0:
            with suppress(ValueError):
                return f"engine {self.name} died of {signal.Signals(-code).name}"
        return f"engine {self.name} ended with exit code {code}"

    async def _listen(self, deadline_s: float) -> None:
        if self._launch.speaks_first:
            line = await self._first_line(deadline_s)
            try:
                report = self._launch.heard(line)
            except ValueError as error:
                raise self._failed(f"engine {self.name} was not confined: {error}") from error
            for reason in report.why:
                self.log.write(f"edgewright: not confined: {reason}\n".encode())
        line = await self._first_line(deadline_s)
        try:
            ports = contract.listening(json.loads(line))
        except ValueError as error:
            raise self._failed(f"engine {self.name} began with {line[:80]!r}: {error}") from error
        given = self._launch.ports
        if given and (ports.port, ports.openai_port) != (given[0], given[-1]):
            raise self._failed(f"engine {self.name} does not serve on the sockets that it was given (--sockets)")
        self._url = f"http://127.0.0.1:{ports.port}"
        self._openai_url = f"http://127.0.0.1:{ports.openai_port}/v1"

    async def _first_line(self, deadline_s: float) -> bytes:
        """The next line of standard output. Raises EngineFailed."""
        assert self._process.stdout is not None
        line = await self._before_exit(self._process.stdout.readline(), deadline_s, "did not listen")
        if not line:
            await asyncio.wait_for(self.wait(), deadline_s)
            raise self._failed(self.exit_reason())
        return line

    async def _poll_ready(self) -> None:
        while True:
            with suppress(aiohttp.ClientError):  # the exit, if it is one, is noticed by _before_exit
                status, document = await self._get("/engine/ready", _ASK_S)
                if status == 200:
                    return
                if isinstance(document, dict) and document.get("state") == "failed":
                    raise self._failed(f"engine {self.name} cannot serve: {_error_of(document)}")
            await asyncio.sleep(_POLL_S)

    async def _ask(self, path: str, read: Callable[[Any], T]) -> T:
        status, document = await self._before_exit(self._get(path, _ASK_S), _ASK_S, f"did not answer {path}")
        if status != 200:
            raise self._failed(f"engine {self.name}: {path} answered {status}: {_error_of(document)}")
        try:
            return read(document)
        except contract.EngineReplyError as error:
            raise self._failed(f"engine {self.name}: {path}: {error}") from error

    async def _get(self, path: str, deadline_s: float) -> tuple[int, Any]:
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        async with self._session.get(self._url + path, timeout=timeout, allow_redirects=False) as response:
            body = await reply.body(response, _MAX_REPLY)
            try:
                return response.status, json.loads(body)
            except ValueError as error:
                raise self._failed(f"engine {self.name}: {path} answered {body[:80]!r}") from error

    async def _before_exit(self, asked: Awaitable[T], deadline_s: float, failing: str) -> T:
        """The answer, unless the child ends or the deadline passes first. Raises EngineFailed."""
        answer = asyncio.ensure_future(asked)
        ended = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({answer, ended}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if ended.done():
                raise self._failed(self.exit_reason())
            raise self._failed(f"engine {self.name} {failing} within {deadline_s:g} s")
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            gone = await self.ends_within(2 * _LAST_WORDS_S)
            reason = self.exit_reason() if gone else f"engine {self.name} {failing}: {error!r}"
            raise self._failed(reason) from error
        finally:
            for task in (answer, ended):
                task.cancel()
            await asyncio.gather(answer, ended, return_exceptions=True)

    def _failed(self, reason: str) -> EngineFailed:
        return EngineFailed(reason, self.log.last_lines())

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(1 << 14):
            self.log.write(data)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)


def _error_of(document: Any) -> str:
    error = document.get("error") if isinstance(document, dict) else None
    return str(error if error is not None else document)[:500]
