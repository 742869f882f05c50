"""The MQTT broker as a managed child: a generated mosquitto configuration, mutual TLS, an access list by certificate.

The broker knows a client by its certificate alone: user name and client id are both the certificate's CN, so a
device can neither write another's topics nor take over another's connection by its client id. What the broker
confirms is not durable (a kill loses up to `autosave_interval`); that is why devices keep their spools.

The child does not outlive the controller: on Linux the kernel ends it with its parent (`setpriv --pdeathsig`),
and a start first ends one that a killed controller left behind on the same folder. The latter is needed on Linux
too, since mosquitto forgets a SIGTERM that reaches it before its main loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import itertools
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from edgewright_contract import names
from edgewright_contract.envelope import MAX_ENVELOPE_BYTES
from edgewright_controller import log, ports

READY_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 5.0
STEADY_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
MAX_KILLS: Final = 5  # while it starts, before the controller gives up
HOW_TO_INSTALL: Final = (
    "mosquitto is not installed: `sudo apt install mosquitto`, `brew install mosquitto`, "
    "or in a checkout `python3 tools/fetch_mosquitto.py`"
)

_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_LAST_BYTES: Final = 4096
_RUNNING: Final = b" running\n"  # "mosquitto version 2.0.11 running"

_log = log.of(__name__)


class BrokerMissing(Exception):
    """There is no mosquitto on this machine; the message is the one line that says how to get it."""


class BrokerFailed(Exception):
    """The broker did not start; the message says why, in its own last words."""


@dataclass(frozen=True)
class Mosquitto:
    """The program, and what its environment needs so that it finds its libraries."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BrokerFiles:
    """PEM files: the CA that peers' certificates end in, the own chain, the own key; of the listener also the list of
    certificates that are revoked, which must always be there and in its time: without one nobody gets in."""

    ca: Path
    chain: Path
    key: Path
    crl: Path | None = None


def find_mosquitto(extra: Path | None = None) -> Mosquitto:
    """The broker to run: `extra` if given, else on the PATH, in the system's folders, in a checkout's `.tools`.

    Raises BrokerMissing.
    """
    if extra is not None:
        if not os.access(extra, os.X_OK) or extra.is_dir():
            raise BrokerMissing(f"{extra} (setting broker.mosquitto) is not a program")
        return _with_libraries(extra)
    search = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
    if found := shutil.which("mosquitto", path=search):
        return Mosquitto(Path(found))
    for folder in (Path.cwd(), *Path(__file__).resolve().parents):
        fetched = folder / ".tools/mosquitto/usr/sbin/mosquitto"
        if os.access(fetched, os.X_OK):
            return _with_libraries(fetched)
    raise BrokerMissing(HOW_TO_INSTALL)


def _with_libraries(program: Path) -> Mosquitto:
    """Unpacked packages keep their libraries beside the program: `…/usr/sbin/mosquitto`, `…/usr/lib/<machine>/`."""
    if program.parent.name != "sbin" or program.parent.parent.name != "usr" or program.parts[:2] == ("/", "usr"):
        return Mosquitto(program)
    home = program.parent.parent.parent
    folders = [
        str(folder) for pattern in ("usr/lib/*-linux-*", "lib/*-linux-*") for folder in sorted(home.glob(pattern))
    ]
    return Mosquitto(program, {"LD_LIBRARY_PATH": os.pathsep.join(folders)} if folders else {})


def configuration(folder: Path, host: str, port: int, files: BrokerFiles, user: str) -> str:
    """The text of mosquitto.conf. `files.crl` is for the clients' own certificates.

    `user` is who runs it: as root it would else change to a user that may not exist.
    """
    crl = f"crlfile {files.crl.resolve()}\n" if files.crl else ""
    return f"""# Written by Edgewright at each start; changes are lost.
listener {port} {host}
cafile {files.ca.resolve()}
certfile {files.chain.resolve()}
keyfile {files.key.resolve()}
{crl}require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder / "acl"}
persistence true
persistence_location {folder}/data/
autosave_interval 30
max_inflight_messages 20
max_queued_messages 10000
max_queued_bytes {64 << 20}
max_packet_size {MAX_ENVELOPE_BYTES + 4096}
max_keepalive 300
persistent_client_expiration 7d
sys_interval 0
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
connection_messages false
user {user}
"""


def access_list(controller: str = names.CONTROLLER_CN) -> str:
    """The text of the access list: a device writes its own up topics and reads its own down topics, no more."""
    writes = "".join(f"pattern write {names.TOPIC_ROOT}/%u/up/{leaf}\n" for leaf in names.UP_LEAVES)
    return f"""# Written by Edgewright at each start; changes are lost. %u is the CN of the client's certificate.
user {controller}
topic readwrite {names.TOPIC_ROOT}/#

{writes}pattern read {names.TOPIC_ROOT}/%u/down/#
"""


def pause_s(failures: int) -> float:
    """Seconds before the broker is started again after ending `failures` times soon after its start."""
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 16)))


class Broker:
    """One mosquitto in `folder`, kept running from `start` to `stop`."""

    def __init__(self, folder: Path, host: str, port: int, files: BrokerFiles, mosquitto: Mosquitto):
        self._folder, self._files, self._mosquitto = folder.resolve(), files, mosquitto
        self._host, self._port = host, port
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._said = b""
        self._running = asyncio.Event()
        self._restarting = False
        self._spawning = asyncio.Lock()

    @property
    def address(self) -> str:
        """host:port that it listens on; the port is known after `start`."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it takes connections. Raises BrokerFailed, OSError.

        With port 0 a free one is chosen at the first start and kept in the folder, since devices learn it once.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / "data").mkdir(mode=0o700, exist_ok=True)
        end_leftover(self._folder)
        if self._port == 0:
            self._port = _kept_port(self._folder / "port", self._host)
        try:
            ports.check("listen.mqtt", self._host, self._port)
        except ports.AddressRefused as error:
            raise BrokerFailed(str(error)) from error
        (self._folder / "acl").write_text(access_list(), encoding="utf-8")
        (self._folder / "acl").chmod(0o600)
        text = configuration(self._folder, self._host, self._port, self._files, getpass.getuser())
        (self._folder / "mosquitto.conf").write_text(text, encoding="utf-8")
        try:
            await self._begin_serving()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep(), name="broker")

    def reload(self) -> None:
        """Have it read its certificate again. Connections that stand keep theirs. Nothing while it does not run."""
        pid = self.pid
        if pid is not None and sys.platform != "win32":  # there it takes the new one at its next start
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    async def restart(self) -> None:
        """End every connection, by ending it and starting it again on its port; what it has queued, it keeps.

        Reading a new list of revoked certificates closes no connection that stands. Nothing while it does not run.
        """
        async with self._spawning:  # one that begins just now may have read the list before it changed
            process = self._process
        if process is None or process.returncode is not None:
            return
        self._restarting = True
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait({ended}, timeout=STOP_DEADLINE_S)
        if process.returncode is None:
            process.kill()  # its main loop had not begun, so it forgot the signal
        await ended

    async def stop(self) -> None:
        """End it, so that it saves its queues; kill it when it takes longer than STOP_DEADLINE_S."""
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        if self._listening:
            await self._listening
        (self._folder / "pid").unlink(missing_ok=True)

    async def _spawn(self) -> None:
        """Begin its process. Raises BrokerFailed."""
        async with self._spawning:
            await self._begin()

    async def _begin_serving(self) -> None:
        """Begin, and wait until it takes connections. One that is killed on the way is no fault of its configuration:
        it is begun again, as it would be later. Raises BrokerFailed."""
        for kills in itertools.count(1):
            await self._spawn()
            try:
                await self._wait_ready()
            except BrokerFailed as error:
                process = self._process
                if process is None or (process.returncode or 0) >= 0 or kills == MAX_KILLS:
                    raise
                _log.warning("mosquitto was killed while it started, and is started again", said=str(error))
            else:
                return

    async def _begin(self) -> None:
        command = [str(self._mosquitto.program), "-c", str(self._folder / "mosquitto.conf")]
        if sys.platform == "linux" and (setpriv := shutil.which("setpriv")):
            command = [setpriv, "--pdeathsig", "TERM", *command]
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TZ") if name in os.environ}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment | dict(self._mosquitto.environment),
                start_new_session=True,  # Ctrl-C is for the controller, which then stops it in order
            )
        except OSError as error:
            raise BrokerFailed(f"{self._mosquitto.program}: {error}") from error
        assert self._process.stderr is not None
        self._said = b""
        self._running.clear()
        self._listening = asyncio.create_task(self._listen(self._process.stderr), name="broker's words")
        (self._folder / "pid").write_text(str(self._process.pid), encoding="ascii")

    async def _wait_ready(self) -> None:
        """Until it says that it runs. An open port proves nothing: it listens before it has read its key."""
        assert self._process is not None
        waits = [asyncio.create_task(self._process.wait()), asyncio.create_task(self._running.wait())]
        try:
            await asyncio.wait(waits, timeout=READY_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._process.returncode is not None:
            raise BrokerFailed(f"mosquitto ended with status {self._process.returncode}: {await self._last_words()}")
        if not self._running.is_set():
            raise BrokerFailed(f"mosquitto is not ready after {READY_DEADLINE_S:.0f} s: {await self._last_words()}")

    async def _keep(self) -> None:
        """Start it again whenever it ends, sooner or later depending on how long it ran."""
        failures = 0
        while True:
            assert self._process is not None
            began = time.monotonic()
            status = await self._process.wait()
            wanted, self._restarting = self._restarting, False
            if wanted:
                failures = 0
                await self._start_again()
                continue
            failures = 0 if time.monotonic() - began > STEADY_S else failures + 1
            _log.warning("mosquitto ended and is started again", status=status, said=await self._last_words())
            await asyncio.sleep(pause_s(failures - 1 if failures else 0))
            await self._start_again()

    async def _start_again(self) -> None:
        try:
            await self._spawn()
        except BrokerFailed as error:
            _log.error("mosquitto does not start", why=str(error))

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Keep the last of what it says; strangers can make it say much, so none of it goes to the disk."""
        while piece := await stream.read(_LAST_BYTES):
            self._said = (self._said + piece)[-_LAST_BYTES:]
            if _RUNNING in self._said:
                self._running.set()

    async def _last_words(self) -> str:
        if self._listening:
            await asyncio.wait([self._listening], timeout=1)  # the pipe may hold its last line still
        lines = self._said.decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if ": Error: " in line] or lines  # OpenSSL's own stack says less
        return "; ".join(line.partition(": ")[2] or line for line in errors[-3:]) or "it said nothing"


def end_leftover(folder: Path) -> None:
    """End the broker that a killed controller left behind on this folder, if it is still there."""
    try:
        pid = int((folder / "pid").read_text(encoding="ascii"))
        process = psutil.Process(pid)
        if str(folder / "mosquitto.conf") not in process.cmdline():
            return  # the number belongs to another process by now
        _log.warning("ending mosquitto, left behind by an earlier controller", pid=pid)
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_DEADLINE_S)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return


def _kept_port(path: Path, host: str) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(path.read_text(encoding="ascii"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port = int(probe.getsockname()[1])
    path.write_text(str(port), encoding="ascii")
    return port
