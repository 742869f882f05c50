"""An engine that has been taken over tries to get out: each attack is refused, or told as not confined.

The same child runs three times: free, confined as the agent's user, and confined as a user of its own where that can
be. What the free one achieves shows that an attack would work; what a kernel cannot refuse must stand in `unconfined`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from edgewright_agent.engines.catalogue import EngineMissing, EngineSettings
from edgewright_agent.engines.confine import plan as words
from edgewright_agent.engines.confinement import BEST, OFF, REQUIRE, Confinement, ConfinementSettings
from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_contract.engine import EngineSpec
from tests.agent import echo

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what confines an engine elsewhere is unproven")

EVIL = str(Path(__file__).with_name("evil_engine.py"))
LIMIT_MB = 1024  # the margin; the need below is next to nothing
NEED = 1
module_loop = pytest.mark.asyncio(loop_scope="module")


def interpreter_for_anybody() -> str:
    """One that another user can start; empty where there is none, and then there is no user of its own."""
    for found in filter(None, (shutil.which("python3", path="/usr/bin:/usr/local/bin"), sys.executable)):
        places = [Path(found).resolve(), *Path(found).resolve().parents]
        if all(place.stat().st_mode & 0o001 for place in places):
            return found
    return ""


class World:
    """What there is to attack: a state folder as an agent has it, listeners, and a process to kill."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.state = folder / "state"
        self.artifact = echo.artifact(self.state / "artifacts" / ("a" * 64))
        self.other = echo.artifact(self.state / "artifacts" / ("b" * 64)) / "echo.json"
        self.key = self.state / "identity" / "key.pem"
        self.key.parent.mkdir(mode=0o700)
        self.key.write_text("the key of this device")
        self.key.chmod(0o600)
        self.database = self.state / "agent.sqlite"
        self.database.write_text("what this agent knows")
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.outside.chmod(0o777)
        self.victim = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        self.stream, self.local, self.abstract = (
            socket.socket(),
            socket.socket(socket.AF_UNIX),
            socket.socket(socket.AF_UNIX),
        )
        self.stream.bind(("127.0.0.1", 0))
        self.local_path = str(folder / "socket")
        self.local.bind(self.local_path)
        os.chmod(self.local_path, 0o777)
        self.abstract_name = f"@edgewright-{os.getpid()}"
        self.abstract.bind(self.abstract_name.replace("@", "\0"))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.local_datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.local_datagram_path = str(folder / "datagrams")
        self.local_datagrams.bind(self.local_datagram_path)
        os.chmod(self.local_datagram_path, 0o777)
        for listening in (self.stream, self.local, self.abstract):
            listening.listen()
            threading.Thread(target=self._greet, args=(listening,), daemon=True).start()

    def _greet(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                one, _ = listening.accept()
                with one:
                    one.sendall(b"hello from outside")

    def names(self) -> dict[str, str]:
        """What stands for what in an attack's argument."""
        return {
            "STATE": str(self.state),
            "KEY": str(self.key),
            "DATABASE": str(self.database),
            "OTHER": str(self.other),
            "ARTIFACT": str(self.artifact / "echo.json"),
            "OUTSIDE": str(self.outside),
            "PORT": str(self.stream.getsockname()[1]),
            "DATAGRAMS": str(self.datagrams.getsockname()[1]),
            "LOCAL": self.local_path,
            "ABSTRACT": self.abstract_name,
            "LOCAL_DATAGRAMS": self.local_datagram_path,
            "VICTIM": str(self.victim.pid),
            "AGENT": str(os.getpid()),
        }

    def close(self) -> None:
        self.victim.kill()
        self.victim.wait()
        for one in (self.stream, self.local, self.abstract, self.datagrams, self.local_datagrams):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@dataclass
class Captive:
    """One evil engine, and what it is asked."""

    process: EngineProcess
    world: World

    async def say(self, text: str) -> str:
        url = f"{self.process.openai_url}/chat/completions"
        async with self.process.session.post(url, json=echo.question(text)) as answer:
            document = await answer.json()
            assert answer.status == 200, document
            return str(document["choices"][0]["message"]["content"])

    async def attempt(self, escape: str) -> str:
        """What it says came of it."""
        for name, value in self.world.names().items():
            escape = escape.replace(f"{{{name}}}", value)
        return await self.say(f"escape {escape}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # Where any user may pass: pytest's own folders are closed to all but theirs.
    folder = Path("/var/tmp") / tmp_path_factory.mktemp("world").name
    folder = folder.with_name(f"edgewright-{os.getpid()}-{folder.name}")
    folder.mkdir()
    made = World(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


async def captive(world: World, mode: str, python: str, *, need: int = NEED) -> Captive:
    spec = EngineSpec("gguf", str(world.artifact), "echo", memory_bytes=need)
    confinement = Confinement(ConfinementSettings(mode), world.state)
    settings = EngineSettings(python=python, engine=EVIL)
    log = world.outside / f"{mode}.log"
    process = await EngineProcess.start(spec, settings, log, confinement=confinement, deadline_s=30)
    try:
        await process.wait_ready(30)
    except BaseException:
        await process.stop(0)
        raise
    return Captive(process, world)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def free(world: World) -> AsyncIterator[Captive]:
    one = await captive(world, OFF, sys.executable)
    yield one
    await one.process.stop(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["the agent's user", "a user of its own"])
async def confined(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Captive]:
    python = interpreter_for_anybody() if request.param == "a user of its own" else sys.executable
    one = await captive(world, BEST, python or sys.executable)
    yield one
    await one.process.stop(0)


@dataclass(frozen=True)
class Attack:
    """`escape` as evil_engine.py knows it. `excuses`: with one of these in `unconfined` it may succeed. `works`: what
    the free engine's success begins with; empty: it takes more than this test's user or kernel has to show that."""

    name: str
    escape: str
    excuses: tuple[str, ...]
    works: str = "escaped"


_CALLS = words.SYSTEM_CALLS
ATTACKS = [
    Attack("engine connects out", "tcp {PORT}", (words.NETWORK,)),
    Attack("engine connects out by fast open", "tcp_by_fast_open {PORT}", (words.NETWORK,), ""),
    Attack("engine sends datagrams", "udp {DATAGRAMS}", (words.NETWORK,)),
    Attack("engine listens to the world", "listen_everywhere", (words.NETWORK,)),
    Attack("engine asks a local service", "local_socket {LOCAL}", (words.UNIX_SOCKETS,)),
    Attack("engine asks an abstract socket", "local_socket {ABSTRACT}", (words.UNIX_SOCKETS,)),
    Attack("engine writes to a local service", "local_datagram {LOCAL_DATAGRAMS}", (words.UNIX_SOCKETS,)),
    Attack("engine asks the kernel's network", "netlink", (_CALLS,)),
    Attack("engine listens to raw packets", "raw_packets", (_CALLS,), ""),
    Attack("engine reads the device key", "read {KEY}", (words.FILES,)),
    Attack("engine reads the agent's database", "read {DATABASE}", (words.FILES,)),
    Attack("engine reads another artifact", "read {OTHER}", (words.FILES,)),
    Attack("engine lists the state folder", "list_folder {STATE}", (words.FILES,)),
    Attack("engine reads shadow", "read /etc/shadow", (words.FILES,), ""),
    Attack("engine reads the agent's environment", "read /proc/{AGENT}/environ", (words.FILES,), ""),
    Attack("engine reads the key through the agent's root", "read /proc/{AGENT}/root{KEY}", (words.FILES,), ""),
    Attack("engine writes outside its folder", "make {OUTSIDE}/CASE", (words.FILES,)),
    Attack("engine writes to its artifact", "write {ARTIFACT}", (words.FILES,), ""),
    Attack("engine truncates the database", "truncate {OUTSIDE}/truncated", (words.FILES,)),
    Attack("engine changes a mode", "change_mode {OUTSIDE}/truncated", (_CALLS,)),
    Attack("engine links the key to itself", "link {KEY}", (words.FILES,), ""),
    Attack("engine renames what is not its own", "rename {OUTSIDE}/renamed", (words.FILES,), ""),
    Attack("engine traces the agent", "trace {VICTIM}", (_CALLS,), ""),
    Attack("engine reads the agent's memory", "read_memory {VICTIM}", (_CALLS,), ""),
    Attack("engine kills the agent", "kill {VICTIM}", (_CALLS,), ""),
    Attack("engine has the agent killed", "kill_by_owner {VICTIM}", (_CALLS,), ""),
    Attack("engine limits the agent", "limits_of {VICTIM}", (_CALLS,)),
    Attack("engine becomes root", "become_root", (words.OWN_USER, _CALLS), ""),
    Attack("engine starts a process", "fork", (_CALLS,)),
    Attack("engine is a fork bomb", "fork_bomb 600", (words.PROCESSES,)),
    Attack("engine starts a setuid program", "execute /usr/bin/su", (words.FILES, _CALLS), ""),
    Attack("engine starts a shell", "execute /bin/sh", (words.FILES,), ""),
    Attack("engine takes all memory", f"swallow {LIMIT_MB + 256}", (words.MEMORY,)),
    Attack("engine mounts", "mount {OUTSIDE}", (_CALLS,), ""),
    Attack("engine makes a namespace", "new_user_namespace", (_CALLS,), ""),
    Attack("engine clones into a namespace", "clone_into_namespace", (_CALLS,), ""),
    Attack("engine reads physical memory", "device /dev/mem", (words.FILES,), ""),
    Attack("engine makes a device node", "make_device", (words.FILES,), ""),
    *[
        Attack(f"engine calls {name}", f"numbered {x86 if os.uname().machine == 'x86_64' else arm}", (_CALLS,), "")
        for name, x86, arm in (
            ("bpf", 321, 280),
            ("perf events", 298, 241),
            ("the keyring", 250, 219),
            ("io_uring", 425, 425),
            ("userfaultfd", 323, 282),
            ("modules", 175, 105),
            ("kexec", 246, 104),
            ("handles instead of names", 304, 265),
            ("reboot", 169, 142),
            ("the clock", 227, 112),
        )
    ],
]


@module_loop
@pytest.mark.parametrize(
    "attack", [pytest.param(one, marks=pytest.mark.attack(one.name), id=one.name) for one in ATTACKS]
)
async def test_an_engine_does_not_get_out(attack: Attack, confined: Captive, free: Captive) -> None:
    for spoilt in ("truncated", "renamed"):
        (confined.world.outside / spoilt).write_text("content")
        (confined.world.outside / spoilt).chmod(0o666)
    assert await confined.say("one two") == "one two"
    if attack.works:
        told = await free.attempt(attack.escape.replace("CASE", f"free-{confined.process.pid}"))
        assert told.startswith(attack.works), told
    told = await confined.attempt(attack.escape.replace("CASE", f"confined-{confined.process.pid}"))
    if told.startswith("refused: "):
        assert await confined.say("one two") == "one two"
        assert confined.world.victim.poll() is None
        return
    assert set(attack.excuses) & set(confined.process.unconfined), f"{told}; {confined.process.unconfined}"


@module_loop
@pytest.mark.attack("engine is another user than it seems")
async def test_a_user_of_its_own_owns_nothing_and_cannot_go_back(confined: Captive, world: World) -> None:
    told = await confined.attempt("who")
    (real, effective, saved), groups, more = json.loads(told.removeprefix("escaped: "))
    assert real == effective == saved
    if words.OWN_USER in confined.process.unconfined:
        assert real == os.geteuid()
        return
    assert real not in (0, os.geteuid())
    assert 0 not in groups + more
    assert (world.state.stat().st_mode & 0o777, world.key.parent.stat().st_mode & 0o077) == (0o710, 0)
    assert world.database.stat().st_mode & 0o077 == 0
    assert world.artifact.stat().st_mode & 0o007 == 0


@module_loop
@pytest.mark.attack("engine finds a credential that was left open")
async def test_no_credential_and_no_file_of_the_agent_is_left_open(confined: Captive) -> None:
    kept: dict[str, str] = json.loads((await confined.attempt("open_files")).removeprefix("escaped: "))
    kinds = {target.split(":")[0] for name, target in kept.items() if name not in ("0", "1", "2")}
    assert kinds <= {"socket", "pipe"} | {f"/proc/{confined.process.pid}/fd"}, kept
    variables: dict[str, str] = json.loads((await confined.attempt("environment")).removeprefix("escaped: "))
    assert "EDGEWRIGHT_ENGINE_SECRET" not in variables
    assert variables["HOME"] == variables["TMPDIR"] != os.environ.get("HOME")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="no other architecture has a second interface like it")
@pytest.mark.attack("engine calls by another interface's numbers")
async def test_a_call_by_other_numbers_ends_the_engine(world: World) -> None:
    one = await captive(world, BEST, sys.executable)
    try:
        assert await one.say("one two") == "one two"
        with contextlib.suppress(Exception):
            told = await one.attempt("other_abi")
            assert told.startswith("refused") or words.SYSTEM_CALLS in one.process.unconfined
        if words.SYSTEM_CALLS not in one.process.unconfined:
            await asyncio.wait_for(one.process.wait(), 10)
            assert "SIGSYS" in one.process.exit_reason()
    finally:
        await one.process.stop(0)


@pytest.mark.attack("engine dies of its memory limit unexplained")
async def test_an_engine_that_dies_of_its_limit_is_told_with_it(world: World) -> None:
    one = await captive(world, BEST, sys.executable)
    try:
        assert await one.say("one two") == "one two"
        if words.MEMORY in one.process.unconfined:
            return
        with contextlib.suppress(Exception):
            await one.attempt(f"swallow_and_die {LIMIT_MB + 256}")
        await asyncio.wait_for(one.process.wait(), 10)
        assert f"more memory than its limit of {2 * NEED + (LIMIT_MB << 20):,} bytes" in one.process.exit_reason()
    finally:
        await one.process.stop(0)


@pytest.mark.attack("engine survives the agent")
async def test_a_deaf_engine_ends_with_the_agent(tmp_path: Path) -> None:
    given = {"artifact": str(echo.artifact(tmp_path / "a", deaf=True)), "engine": EVIL, "log": str(tmp_path / "log")}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, json.dumps(given), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await asyncio.wait_for(parent.stdout.readline(), 30)))
    assert child.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [child], 10)
    assert gone


_PARENT = """
import asyncio, json, sys
from pathlib import Path
from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_agent.engines.confinement import Confinement
from edgewright_agent.engines.process import EngineProcess
from edgewright_contract.engine import EngineSpec

async def main():
    given = json.loads(sys.argv[1])
    spec = EngineSpec("gguf", given["artifact"], "echo")
    settings = EngineSettings(engine=given["engine"])
    engine = await EngineProcess.start(spec, settings, Path(given["log"]), confinement=Confinement())
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@module_loop
async def test_its_folder_goes_with_it_and_its_writing_stays_inside(world: World) -> None:
    one = await captive(world, BEST, sys.executable)
    variables: dict[str, str] = json.loads((await one.attempt("environment")).removeprefix("escaped: "))
    folder = Path(variables["TMPDIR"])
    assert (await one.attempt(f"make {folder}/kept")).startswith("escaped: ")
    assert (folder / "kept").is_file()
    await one.process.stop()
    assert not folder.exists()
    # One whose agent was killed is removed when the next one starts.
    left, others = Path(f"{folder}-left"), folder.with_name("edgewright-engine-of-another-agent")
    for made in (left, others):
        made.mkdir()
    Confinement(state=world.state).sweep()
    assert (left.exists(), others.exists()) == (False, True)
    others.rmdir()


async def test_require_starts_a_confined_engine_or_says_what_is_missing(world: World) -> None:
    python = interpreter_for_anybody() or sys.executable
    possible = await captive(world, BEST, python)
    missing = possible.process.unconfined
    await possible.process.stop(0)
    if not missing:
        whole = await captive(world, REQUIRE, python)
        assert await whole.say("one two") == "one two"
        await whole.process.stop(0)
    with pytest.raises(EngineFailed) as caught:
        await captive(world, REQUIRE, python, need=0)
    said = " ".join(caught.value.last_lines)
    assert "not started, because this does not confine it" in said
    assert "memory limit: the release does not say how much it needs" in said
    assert 'engines.confinement = "best" would start it all the same' in said


async def test_a_user_that_is_not_there_is_named(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root is asked for another user")
    spec = EngineSpec("gguf", str(world.artifact), "echo")
    for name, told in (("nobody-here", "this system has no user 'nobody-here'"), ("root", "is root, which an engine")):
        confinement = Confinement(ConfinementSettings(BEST, name), world.state)
        with pytest.raises(EngineMissing, match=told):
            await EngineProcess.start(spec, EngineSettings(engine=EVIL), world.outside / "log", confinement=confinement)
