"""Each measure by itself: what the launcher makes of a kernel that lacks another, and what then still holds."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright_agent.engines import cgroup, interpreter, linux_plan, macos_profile, own_user
from edgewright_agent.engines.catalogue import Engine
from edgewright_agent.engines.confine import bpf, landlock, seccomp, syscalls
from edgewright_agent.engines.confine import plan as words
from edgewright_agent.engines.confine.plan import Plan, Report
from edgewright_agent.engines.confinement import Launch
from edgewright_contract.engine import EngineSpec
from tests.agent import echo

linux = pytest.mark.skipif(sys.platform != "linux", reason="these are measures of Linux")

EVIL = Path(__file__).with_name("evil_engine.py")
OLD_KERNEL = Path(__file__).with_name("old_kernel.py")
LAUNCHER = Path(words.__file__).with_name("launch.py")
PACKAGE = str(Path(words.__file__).parents[3])
THIS = syscalls.architecture(os.uname().machine) if sys.platform == "linux" else None


@pytest.fixture
def greeter() -> Iterator[int]:
    """The port of a listener on the loopback that greets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def greet() -> None:
            try:
                while True:
                    one, _ = server.accept()
                    one.sendall(b"hello from outside")
                    one.close()
            except OSError:
                return  # closed at the end

        threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def plan(folder: Path) -> Plan:
    """As the agent makes it for an engine on the CPU whose memory is known, with nobody to become."""
    engine = Engine("evil", "gguf", EVIL, "", "")
    own = interpreter.look(sys.executable)
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    spec = EngineSpec("gguf", str(echo.artifact(folder / "artifact")), "echo")
    return Plan(
        parent=os.getpid(),
        needed=(str(own.program),),
        listed=linux_plan.listed(engine, None),
        read=linux_plan.readable(engine, own, spec, {}, None),
        execute=linux_plan.executable(own),
        write=(str(temporary),),
        devices=linux_plan.nodes("cpu"),
        memory_bytes=1 << 30,
    )


def on_old_kernel(without: str) -> list[str]:
    """What stands before a command that shall miss these parts of the kernel."""
    return [sys.executable, "-I", "-S", str(OLD_KERNEL), PACKAGE, without]


def launched(wanted: Plan, *escapes: str, without: str = "") -> tuple[Report, list[str]]:
    """The launcher's account, and what came of each attempt, `without` these parts of the kernel."""
    command = [
        sys.executable,
        "-I",
        "-S",
        str(LAUNCHER),
        wanted.to_json(),
        sys.executable,
        str(EVIL),
        "--try",
        *escapes,
    ]
    if without:
        command = [*on_old_kernel(without), *command]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"TMPDIR": wanted.write[0]},
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    return Report.from_json(first), [json.loads(line) for line in rest]


@linux
@pytest.mark.attack("engine with a server connects out")
def test_a_server_of_its_own_reaches_itself_and_nobody_else(tmp_path: Path, greeter: int) -> None:
    port = free_port()
    wanted = replace(plan(tmp_path), own_server=True, port=port)
    report, (itself, out, by_datagram, everywhere) = launched(
        wanted, f"tcp_to_itself {port}", f"tcp {greeter}", f"udp {greeter}", "listen_everywhere"
    )
    assert itself == "escaped: b''"
    assert by_datagram.startswith("refused: ") or words.SYSTEM_CALLS in report.unconfined
    assert out.startswith("refused: ") or words.NETWORK in report.unconfined
    # In a network of its own it may listen wherever it likes.
    assert report.apart or everywhere.startswith("refused: ") or words.NETWORK in report.unconfined


@linux
@pytest.mark.attack("engine with a server connects out without a namespace")
def test_without_a_namespace_its_port_is_all_that_is_left(tmp_path: Path, greeter: int) -> None:
    port = free_port()
    wanted = replace(plan(tmp_path), own_server=True, port=port)
    report, (itself, out, everywhere) = launched(
        wanted, f"tcp_to_itself {port}", f"tcp {greeter}", "listen_everywhere", without="unshare"
    )
    assert not report.apart
    assert itself == "escaped: b''"
    if landlock.abi() >= landlock.PORTS_SINCE:
        assert words.OWN_PORT in report.unconfined
        assert words.NETWORK not in report.unconfined
        assert (out[:8], everywhere[:8]) == ("refused:", "refused:")
    else:
        assert words.NETWORK in report.unconfined
    # An engine without a server needs no socket, and so has no network without any namespace either.
    report, (out,) = launched(plan(tmp_path), f"tcp {greeter}", without="unshare")
    assert out.startswith("refused: ") or words.SYSTEM_CALLS in report.unconfined
    assert words.NETWORK not in report.unconfined or words.SYSTEM_CALLS in report.unconfined


@linux
@pytest.mark.attack("engine on a kernel without seccomp")
def test_without_a_filter_the_rest_still_holds_and_it_is_told(tmp_path: Path, greeter: int) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not for engines")
    victim = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        report, told = launched(
            plan(tmp_path), "who", f"read {outside}", f"tcp {greeter}", f"kill {victim.pid}", without="seccomp"
        )
        assert {words.SYSTEM_CALLS, words.UNIX_SOCKETS} <= set(report.unconfined)
        assert told[0].startswith("escaped: ")
        assert told[1].startswith("refused: ") or words.FILES in report.unconfined
        assert told[2].startswith("refused: ") or words.NETWORK in report.unconfined
        if landlock.abi() >= landlock.SCOPES_SINCE:
            assert told[3].startswith("refused: ")
    finally:
        victim.kill()
        victim.wait()


@linux
@pytest.mark.attack("engine on a kernel without Landlock")
def test_without_landlock_files_are_told_and_the_rest_holds(tmp_path: Path, greeter: int) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not for engines")
    report, (read, out) = launched(plan(tmp_path), f"read {outside}", f"tcp {greeter}", without="landlock")
    assert read == "escaped: read b'not for engines'"
    assert words.FILES in report.unconfined
    assert "files: this kernel has no Landlock" in report.why
    assert out.startswith("refused: ") or words.SYSTEM_CALLS in report.unconfined


@linux
@pytest.mark.attack("engine on a kernel that confines in nothing")
def test_with_nothing_at_all_it_serves_and_require_does_not(tmp_path: Path) -> None:
    wanted = replace(plan(tmp_path), own_server=True)
    report, (who,) = launched(wanted, "who", without="seccomp,landlock,unshare")
    assert who.startswith("escaped: ")
    assert {words.OWN_USER, words.FILES, words.NETWORK, words.SYSTEM_CALLS, words.PROCESSES} <= set(report.unconfined)
    strict = replace(wanted, require=True)
    command = [sys.executable, "-I", "-S", str(LAUNCHER), strict.to_json(), sys.executable, str(EVIL), "--try", "who"]
    done = subprocess.run(
        [*on_old_kernel("landlock"), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (words.REFUSED_EXIT, "")
    assert "files: this kernel has no Landlock" in done.stderr


@linux
@pytest.mark.attack("engine as root without a user of its own")
def test_a_root_that_stays_root_is_worth_nothing(tmp_path: Path) -> None:
    report, (who, root) = launched(plan(tmp_path), "who", "become_root")
    assert words.OWN_USER in report.unconfined
    assert json.loads(who.removeprefix("escaped: "))[0] == [os.geteuid()] * 3
    assert root.startswith("refused: ")


@linux
def test_an_agent_that_is_gone_gets_no_engine(tmp_path: Path) -> None:
    orphan = replace(plan(tmp_path), parent=1)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCHER), orphan.to_json(), sys.executable, str(EVIL), "--try", "who"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (words.REFUSED_EXIT, "")
    assert "the agent is gone" in done.stderr


def judged(architecture: syscalls.Architecture, allowed: seccomp.Allowed, number: int, *arguments: int) -> int:
    """What the filter answers, by the rules of classic BPF."""
    code = seccomp.program(architecture, allowed)
    instructions = [struct.unpack_from("=HBBI", code, place) for place in range(0, len(code), 8)]
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture.audit, 0, *padded)
    taken, place = 0, 0
    while True:
        kind, if_true, if_false, value = instructions[place]
        place += 1
        if kind == 0x20:
            taken = struct.unpack_from("=I", data, value)[0]
        elif kind == 0x54:
            taken &= value
        elif kind == 0x06:
            return int(value)
        else:
            true = {0x15: taken == value, 0x35: taken >= value, 0x45: bool(taken & value)}[kind]
            place += if_true if true else if_false


def number(architecture: syscalls.Architecture, name: str) -> int:
    found = architecture.number(name)
    assert found is not None
    return found


@pytest.mark.parametrize("architecture", [syscalls.X86_64, syscalls.AARCH64], ids=lambda one: str(one.machine))
def test_the_filter_judges_alike_on_both_architectures(architecture: syscalls.Architecture) -> None:
    allow, refuse = bpf.ALLOW, bpf.failing()
    quiet, server = seccomp.Allowed(77), seccomp.Allowed(77, own_server=True)
    driver = seccomp.Allowed(77, unix_sockets=True)
    cases = [
        (quiet, "ptrace", (), refuse),
        (quiet, "unshare", (), refuse),
        (quiet, "clone", (0x3D0F00,), allow),  # as the C library makes a thread
        (quiet, "clone", (17,), refuse),  # as it forks
        (quiet, "clone", (0x10000000 | 0x10000,), refuse),
        (quiet, "clone3", (), bpf.failing(errno.ENOSYS)),
        (quiet, "kill", (77, 9), allow),
        (quiet, "kill", (0, 9), allow),
        (quiet, "kill", (78, 9), refuse),
        (quiet, "kill", (0xFFFFFFFF, 9), refuse),  # -1: everybody
        (quiet, "tgkill", (77, 80, 6), allow),
        (quiet, "tgkill", (78, 78, 6), refuse),
        (quiet, "fcntl", (3, 8, 77), allow),
        (quiet, "fcntl", (3, 8, 78), refuse),
        (quiet, "fcntl", (3, 8, 2**32 - 77), refuse),  # a group
        (quiet, "fcntl", (3, 15, 0), refuse),
        (quiet, "fcntl", (3, 4, 0), allow),
        (quiet, "ioctl", (3, 0x5412), refuse),
        (quiet, "ioctl", (3, 0xC0484632), allow),  # as a driver is asked
        (quiet, "socket", (2, 1, 0), refuse),
        (quiet, "connect", (), refuse),
        (quiet, "socketpair", (1, 1, 0), allow),
        (quiet, "socketpair", (1, 2, 0), refuse),
        (server, "socket", (2, 1 | 0x80000, 6), allow),
        (server, "socket", (10, 1, 0), allow),
        (server, "socket", (2, 2, 17), refuse),
        (server, "socket", (2, 1, 262), refuse),  # TCP on several paths, which Landlock has overlooked
        (server, "socket", (16, 3, 0), refuse),
        (server, "socket", (1, 1, 0), refuse),
        (server, "connect", (), allow),
        (server, "sendto", (3, 0, 0, 0x20000000), refuse),
        (server, "sendto", (3, 0, 0, 0x4000), allow),
        (server, "sendmsg", (3, 0, 0x20000000), refuse),
        (driver, "socket", (1, 1, 0), allow),
        (driver, "socket", (2, 1, 0), refuse),
    ]
    for allowed, name, arguments, expected in cases:
        told = judged(architecture, allowed, number(architecture, name), *arguments)
        assert told == expected, (name, arguments, hex(told))
    other = syscalls.AARCH64 if architecture is syscalls.X86_64 else syscalls.X86_64
    assert judged(replace(architecture, audit=other.audit), quiet, 0) == allow  # the simulation follows the filter
    code = seccomp.program(architecture, quiet)
    assert struct.unpack_from("=I", code, 12)[0] == architecture.audit
    if architecture is syscalls.X86_64:
        assert judged(architecture, quiet, 0x40000000 | 39) == bpf.KILL


@pytest.mark.parametrize(
    ("architecture", "header", "pattern"),
    [
        (syscalls.X86_64, "x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
        # What aarch64 uses as it stands.
        (syscalls.AARCH64, "asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
    ],
    ids=["x86_64", "aarch64"],
)
def test_the_numbers_are_those_of_the_kernels_headers(
    architecture: syscalls.Architecture, header: str, pattern: str
) -> None:
    file = Path("/usr/include", header)
    if not file.is_file():
        pytest.skip(f"no {file} here to compare with")
    known = {name: int(value) for name, value in re.findall(pattern, file.read_text())}
    compared = 0
    for name in syscalls.NAMES:
        mine = architecture.number(name)
        if name in known:
            assert mine == known[name], name
            compared += 1
        else:
            assert mine is None or mine > max(known.values()), name
    assert compared > 60


@pytest.mark.parametrize(
    ("version", "files", "length"),
    [(1, 13, 8), (2, 14, 8), (3, 15, 8), (4, 15, 16), (5, 16, 16), (6, 16, 24), (7, 16, 24)],
)
def test_a_ruleset_takes_away_all_that_its_version_knows(version: int, files: int, length: int) -> None:
    assert landlock.handled_files(version) == (1 << files) - 1
    given = landlock.attributes(version, ports=True)
    assert len(given) == length
    fields = struct.unpack(f"={length // 8}Q", given)
    assert fields[1:] == (3, 3)[: length // 8 - 1]
    assert struct.unpack("=3Q", landlock.attributes(6, ports=False))[1:] == (0, 3)


def test_the_state_is_left_out_of_what_surrounds_it(tmp_path: Path) -> None:
    state = tmp_path / "opt" / "edgewright" / "state"
    state.mkdir(parents=True)
    for name in ("opt/lib", "opt/edgewright/bin", "opt/edgewright/state/identity"):
        (tmp_path / name).mkdir(exist_ok=True)
    around = set(linux_plan.around(tmp_path / "opt", state))
    assert around == {tmp_path / "opt" / "lib", tmp_path / "opt" / "edgewright" / "bin"}
    assert list(linux_plan.around(state, state)) == []
    assert list(linux_plan.around(state / "identity", state)) == []
    assert list(linux_plan.around(tmp_path / "opt" / "lib", state)) == [tmp_path / "opt" / "lib"]


def group(folder: Path, controllers: str = "cpu memory pids") -> tuple[Path, Path]:
    """A tree as systemd gives it: the file that names the agent's group, and the mount."""
    own, mount = folder / "cgroup", folder / "mount"
    given = mount / "system.slice" / "edgewright-agent.service"
    given.mkdir(parents=True)
    (given / "cgroup.controllers").write_text(controllers)
    (given / "cgroup.procs").touch()
    own.write_text("0::/system.slice/edgewright-agent.service\n")
    return own, mount


@linux
def test_a_group_that_was_given_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, mount = group(tmp_path)
    given = mount / "system.slice" / "edgewright-agent.service"
    monkeypatch.setattr(cgroup, "_given", lambda folder: True)  # the mark needs a file system that has such marks
    (given / "engine-left").mkdir()
    found = cgroup.find(own, (mount,))
    assert found is not None
    assert (given / "agent" / "cgroup.procs").read_text() == str(os.getpid())
    assert (given / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert not (given / "engine-left").exists()
    made = found.make("x", 5 << 20)
    assert ((made / "memory.max").read_text(), (made / "pids.max").read_text()) == (str(5 << 20), "512")
    (made / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    launch = Launch([], {}, ())
    launch.group, launch.limit = made, 5 << 20
    assert launch.out_of_memory(()) == ""
    (made / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert launch.out_of_memory(()) == "it was killed, because it wanted more memory than its limit of 5,242,880 bytes"
    # An agent that starts again is in its own part already.
    own.write_text("0::/system.slice/edgewright-agent.service/agent\n")
    assert cgroup.find(own, (mount,)) is not None


@linux
@pytest.mark.parametrize("spoil", ["no controllers", "not given", "the root", "version 1"])
def test_a_group_that_is_not_the_agents_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    own, mount = group(tmp_path, "cpu" if spoil == "no controllers" else "cpu memory pids")
    monkeypatch.setattr(cgroup, "_given", lambda folder: spoil != "not given")
    if spoil == "the root":
        own.write_text("0::/\n")
    if spoil == "version 1":
        own.write_text("4:memory:/user.slice\n")
    assert cgroup.find(own, (mount,)) is None
    assert not (mount / "system.slice" / "edgewright-agent.service" / "agent").exists()


@linux
@pytest.mark.attack("engine reads what belongs to the agent beside its artifact")
def test_a_state_folder_is_closed_to_all_but_its_owner(tmp_path: Path) -> None:
    state = tmp_path / "state"
    artifact = state / "artifacts" / "one"
    (artifact / "deep").mkdir(parents=True)
    (artifact / "deep" / "model").write_text("weights")
    (state / "agent.sqlite").write_text("x")
    (state / "identity").mkdir()
    own_user.open_artifact(state, artifact, os.getgid())
    modes = {str(path.relative_to(state)): path.stat().st_mode & 0o777 for path in state.rglob("*")}
    assert modes["artifacts/one/deep/model"] & 0o067 == 0o040
    assert modes["artifacts/one/deep"] & 0o077 == 0o050
    assert (modes["artifacts"], state.stat().st_mode & 0o777) == (0o710, 0o710)
    assert modes["agent.sqlite"] & 0o077 == modes["identity"] & 0o077 == 0
    elsewhere = echo.artifact(tmp_path / "elsewhere")
    before = elsewhere.stat().st_mode
    own_user.open_artifact(state, elsewhere, os.getgid())
    assert elsewhere.stat().st_mode == before


def test_a_user_that_nobody_has_is_the_same_each_time() -> None:
    """Folders of fixed names: of two that are chosen by chance, one pair in 4,336 has the same number."""
    one, other = Path("/var/lib/edgewright-a"), Path("/var/lib/edgewright-b")
    chosen = own_user.choose("", one)
    assert chosen == own_user.choose("", one)
    assert chosen != own_user.choose("", other)
    assert 61184 <= chosen.uid <= 65519


def test_the_profile_for_macos_takes_away_the_network_and_the_state() -> None:
    text = macos_profile.profile(
        state=Path('/var/lib/edge "wright"'),
        artifact=Path("/var/lib/edgewright/artifacts/a"),
        temporary=Path("/private/tmp/e"),
        home=Path("/Users/x"),
    )
    lines = text.splitlines()
    assert lines[:2] == ["(version 1)", "(allow default)"]
    assert "(deny network-outbound)" in lines
    assert lines.index('(deny file-write* (subpath "/"))') < lines.index(
        '(allow file-write* (subpath "/private/tmp/e"))'
    )
    denied = lines.index('(deny file-read-data (subpath "/var/lib/edge \\"wright\\""))')
    assert denied < lines.index('(allow file-read-data (subpath "/var/lib/edgewright/artifacts/a"))')
    assert text.count("(") == text.count(")")
    with pytest.raises(ValueError, match="cannot stand in a sandbox profile"):
        macos_profile.profile(state=None, artifact=Path("/a\nb"), temporary=Path("/t"), home=None)
