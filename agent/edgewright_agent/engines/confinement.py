"""How an engine's child is confined on this platform, and what it is not kept from. The device's status says the
latter, so that nobody assumes it.

On Linux a launcher (`confine/`) takes the child's place until it is confined, and says what was missing. On macOS the
system's sandbox is put in front. On Windows nothing but the process group and the environment separates an engine
from the agent. Everywhere a child has an environment without credentials, a temporary folder that is removed after
it, and the agent's life.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.engines import catalogue, cgroup, interpreter, linux_plan, macos_profile, own_user
from edgewright_agent.engines.catalogue import Engine, EngineMissing, EngineSettings
from edgewright_agent.engines.confine import plan as words
from edgewright_agent.engines.confine.plan import Plan, Report
from edgewright_agent.engines.interpreter import Interpreter
from edgewright_contract.engine import EngineSpec

OFF: Final = "off"
BEST: Final = "best"
REQUIRE: Final = "require"
MODES: Final = (BEST, REQUIRE, OFF)

EVERYTHING: Final = (
    words.OWN_USER,
    words.FILES,
    words.NETWORK,
    words.UNIX_SOCKETS,
    words.SYSTEM_CALLS,
    words.MEMORY,
    words.PROCESSES,
)
_ON_MACOS: Final = (words.OWN_USER, words.SYSTEM_CALLS, words.MEMORY, words.PROCESSES)
_LAUNCHER: Final = Path(__file__).parent / "confine" / "launch.py"
_TRY_S: Final = 30.0
_OUT_OF_MEMORY: Final = ("MemoryError", "bad_alloc", "Cannot allocate memory", "failed to allocate", "out of memory")


@dataclass(frozen=True)
class ConfinementSettings:
    """[engines] of agent.toml. `mode` is one of MODES: as much as there is, all or no engine, nothing. `user`: who
    engines are when the agent is root; empty: see own_user."""

    mode: str = BEST
    user: str = ""


class Launch:
    """One child's start: its command line and environment, and what belongs to it until it has ended."""

    def __init__(self, command: list[str], environment: dict[str, str], unconfined: tuple[str, ...]) -> None:
        self.command, self.environment, self.unconfined = command, environment, unconfined
        self.sockets: tuple[socket.socket, ...] = ()
        self.speaks_first = False  # whether the launcher's line comes before the child's
        self.limit = 0
        self.temporary: Path | None = None
        self.group: Path | None = None

    @property
    def handles(self) -> tuple[int, ...]:
        """The file descriptors that the child inherits, beside the standard ones."""
        return tuple(one.fileno() for one in self.sockets)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of `sockets`, the only ones at which the child may be asked; empty: whichever it tells."""
        return self._ports

    _ports: tuple[int, ...] = ()

    def hold(self, sockets: tuple[socket.socket, ...]) -> None:
        """Keep these for the child, until `started`."""
        self.sockets = sockets
        self._ports = tuple(int(one.getsockname()[1]) for one in sockets)

    def started(self) -> None:
        """The child has them now."""
        for one in self.sockets:
            one.close()
        self.sockets = ()

    def heard(self, line: bytes) -> Report:
        """The launcher's line. Raises ValueError."""
        report = Report.from_json(line)
        self.unconfined = report.unconfined
        return report

    def out_of_memory(self, last_lines: tuple[str, ...]) -> str:
        """Why the limit explains the child's end, for a person; empty when it does not."""
        if self.group is not None and cgroup.was_killed_for_memory(self.group):
            return f"it was killed, because it wanted more memory than its limit of {self.limit:,} bytes"
        if self.limit and any(sign in line for line in last_lines for sign in _OUT_OF_MEMORY):
            return f"it wanted more memory than its limit of {self.limit:,} bytes"
        return ""

    def close(self) -> None:
        """Remove what belonged to the child, which must have ended. Safe to call twice."""
        self.started()
        if self.group is not None:
            cgroup.remove(self.group)
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)


class Confinement:
    """Prepares each start of an engine. `state` is the agent's folder, of which a child sees one artifact."""

    def __init__(self, settings: ConfinementSettings = ConfinementSettings(), state: Path | None = None) -> None:
        self.settings = settings
        self._state = None if state is None else state.resolve()
        mark = "" if self._state is None else hashlib.sha256(str(self._state).encode()).hexdigest()[:12]
        self._prefix = f"edgewright-engine-{mark}-"
        self._groups: cgroup.Groups | None = None
        self._looked = False

    def prepare(
        self, engine: Engine, settings: EngineSettings, spec: EngineSpec, environment: Mapping[str, str]
    ) -> Launch:
        """The start of one child. Asks the engine's interpreter the first time, so call it in a thread. The caller
        must `close` it. Raises EngineMissing, OSError."""
        child = catalogue.command(engine, settings, spec)
        mode = self.settings.mode
        if mode != OFF and sys.platform == "linux":
            return self._on_linux(engine, settings, spec, environment, child)
        unconfined = _ON_MACOS if mode != OFF and _has_macos_sandbox() else EVERYTHING
        if mode == REQUIRE:
            lacking = ", ".join(unconfined)
            raise EngineMissing(
                f'engines.confinement is "require", and here nothing confines an engine in: {lacking};'
                ' "best" would start it all the same'
            )
        launch = Launch(child, dict(environment), unconfined)
        if mode != OFF:
            with _closing_on_error(launch):
                launch.temporary = _temporary(self._prefix, launch.environment)
                if _has_macos_sandbox():
                    text = macos_profile.profile(
                        state=self._state,
                        artifact=Path(spec.artifact).resolve(),
                        temporary=launch.temporary.resolve(),
                        home=Path(environment["HOME"]) if "HOME" in environment else None,
                    )
                    launch.command = macos_profile.command(text, child)
        return launch

    def sweep(self) -> None:
        """Remove the folders of engines whose agent was killed. The caller holds the state folder's lock."""
        for left in Path(tempfile.gettempdir()).glob(f"{self._prefix}*"):
            shutil.rmtree(left, ignore_errors=True)

    def unconfined(self) -> tuple[str, ...]:
        """What an engine on the CPU would not be kept from, found out by a start without an engine; takes as long as
        starting an interpreter."""
        if self.settings.mode == OFF:
            return EVERYTHING
        if sys.platform != "linux":
            return _ON_MACOS if _has_macos_sandbox() else EVERYTHING
        user = self._user() if os.geteuid() == 0 else own_user.User(0, 0)
        needed = (str(Path(sys.executable).resolve()),)
        wanted = Plan(os.getpid(), needed=needed, uid=user.uid, gid=user.gid, memory_bytes=linux_plan.memory_limit(1))
        try:
            tried = subprocess.run(
                _launcher(wanted),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TRY_S,
                check=True,
            )
            return Report.from_json(tried.stdout).unconfined
        except (OSError, subprocess.SubprocessError, ValueError):
            return EVERYTHING  # a start will say what is wrong

    def _on_linux(
        self,
        engine: Engine,
        settings: EngineSettings,
        spec: EngineSpec,
        environment: Mapping[str, str],
        child: list[str],
    ) -> Launch:
        try:
            own = interpreter.look(settings.interpreter)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise EngineMissing(f"{settings.interpreter} does not run as a Python interpreter: {error}") from error
        launch = Launch([], dict(environment), EVERYTHING)
        with _closing_on_error(launch):
            launch.temporary = _temporary(self._prefix, launch.environment)
            launch.limit = linux_plan.memory_limit(spec.memory_bytes)
            launch.group = self._group(launch.temporary.name, launch.limit)
            launch.hold(_sockets(engine))
            handles = ",".join(map(str, launch.handles))
            # Not by a wrapper that may stand before it: only the interpreter itself may be started.
            child = [str(own.program), *child[1:], "--sockets", handles]
            launch.command = [*_launcher(self._plan(engine, own, spec, launch)), *child]
            launch.speaks_first = True
        return launch

    def _plan(self, engine: Engine, own: Interpreter, spec: EngineSpec, launch: Launch) -> Plan:
        """Also lets the user that the child will be read the artifact."""
        assert launch.temporary is not None
        artifact = Path(spec.artifact).resolve()
        user, groups = own_user.User(0, 0), tuple[int, ...]()
        if os.geteuid() == 0:
            user = self._user()
            groups = own_user.accelerator_groups(linux_plan.devices(spec.accelerator))
            if self._state is not None:
                with contextlib.suppress(OSError):  # then the launcher finds that it is closed, and says so
                    own_user.open_artifact(self._state, artifact, user.gid)
        on_cpu = spec.accelerator == "cpu"
        return Plan(
            parent=os.getpid(),
            needed=(str(own.program), str(engine.child), str(artifact)),
            listed=linux_plan.listed(engine, self._state),
            read=linux_plan.readable(engine, own, spec, launch.environment, self._state),
            execute=linux_plan.executable(own),
            write=(str(launch.temporary),),
            devices=linux_plan.nodes(spec.accelerator),
            uid=user.uid,
            gid=user.gid,
            groups=groups,
            memory_bytes=launch.limit,
            data_limit=on_cpu,
            cgroup="" if launch.group is None else str(launch.group),
            watcher=() if engine.watcher is None else (str(own.program), "-E", "-S", str(engine.watcher)),
            unix_sockets=not on_cpu,
            own_server=engine.own_server,
            port=launch.ports[-1],
            require=self.settings.mode == REQUIRE,
        )

    def _user(self) -> own_user.User:
        try:
            return own_user.choose(self.settings.user, self._state or Path("/"))
        except own_user.NoSuchUser as error:
            raise EngineMissing(str(error)) from error

    def _group(self, name: str, limit: int) -> Path | None:
        if not self._looked:
            self._groups, self._looked = cgroup.find(), True
        return None if self._groups is None else self._groups.make(name, limit)


UNCONFINED: Final = Confinement(ConfinementSettings(OFF))


@contextlib.contextmanager
def _closing_on_error(launch: Launch) -> Iterator[None]:
    try:
        yield
    except BaseException:
        launch.close()
        raise


def _launcher(wanted: Plan) -> list[str]:
    # No packages and no settings of the environment: it must not be the environment that decides what confines.
    return [sys.executable, "-I", "-S", str(_LAUNCHER), wanted.to_json()]


def _temporary(prefix: str, environment: dict[str, str]) -> Path:
    """A folder of its own, which is also its home. The variables are set to it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    environment.update(dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), str(folder)))
    return folder


def _sockets(engine: Engine) -> tuple[socket.socket, ...]:
    """On the loopback: one that listens already, so that the child needs no right to; and for a runtime with a server
    of its own one that only holds the port for it. Raises OSError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    if not engine.own_server:
        return (listening,)
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return listening, held


def _has_macos_sandbox() -> bool:
    return sys.platform == "darwin" and os.access(macos_profile.PROGRAM, os.X_OK)
