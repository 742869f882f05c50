"""An engine whose model has been taken over: it answers properly, and when asked `escape NAME ARGUMENT` it tries to
get out and says what came of it: `escaped: …` or `refused: …`.

It is run by whatever interpreter a test chooses, so it needs the standard library only.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "agent" / "edgewright_agent" / "engines" / "children"))

import echo_engine
import engine_http
import lifeline

libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"


def call(number, *arguments):
    """A system call; raises what it answers."""
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def tcp(port):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as one:
        return one.recv(100).decode()


def tcp_by_fast_open(port):
    with socket.socket() as one:
        one.sendto(b"x", 0x20000000, ("127.0.0.1", int(port)))
        return "sent"


def udp(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"a question for a name server", ("127.0.0.1", int(port)))
        return "sent"


def tcp_to_itself(port):
    """As a runtime asks the server that it has: what must go on working."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", int(port)))
        server.listen()
        with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as one:
            server.accept()[0].close()
            return f"{one.recv(10)!r}"


def listen_everywhere(_):
    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))
        one.listen()
        return str(one.getsockname())


def local_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(5)
        one.connect(path.replace("@", "\0"))
        return one.recv(100).decode()


def local_datagram(path):
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one:
        one.sendto(b"x", path)
        return "sent"


def netlink(_):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return "opened"


def raw_packets(_):
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    return "opened"


def read(path):
    with open(path, "rb") as file:
        return f"read {file.read(40)!r}"


def list_folder(path):
    return ", ".join(os.listdir(path)[:3])


def write(path):
    with open(path, "ab") as file:
        file.write(b"evil")
    return "written"


def make(path):
    with open(path, "xb"):
        return "made"


def truncate(path):
    os.truncate(path, 0)
    return "truncated"


def change_mode(path):
    os.chmod(path, 0o666)
    return "changed"


def link(paths):
    own = Path(tempfile.gettempdir(), "link")
    os.link(paths, own)
    return f"linked, and reads {own.read_bytes()[:40]!r}"


def rename(path):
    os.rename(path, path + ".gone")
    return "renamed"


def trace(pid):
    call(101 if X86 else 117, 0x4206, int(pid), 0, 0)  # PTRACE_SEIZE: it goes on running
    return "attached"


def read_memory(pid):
    into = ctypes.create_string_buffer(8)
    here = struct.pack("QQ", ctypes.addressof(into), 8)
    there = struct.pack("QQ", 0x400000, 8)
    try:
        call(310 if X86 else 270, int(pid), ctypes.c_char_p(here), 1, ctypes.c_char_p(there), 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # only the address was wrong
            raise
    return "was let look"


def kill(pid):
    os.kill(int(pid), signal.SIGTERM)
    return "sent"


def kill_by_owner(pid):
    """The kernel signals a descriptor's owner when something comes in."""
    one, other = socket.socketpair()
    fcntl.fcntl(one, fcntl.F_SETOWN, int(pid))
    fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_ASYNC)
    other.send(b"x")
    return "sent"


def limits_of(pid):
    libc.prlimit.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    if libc.prlimit(int(pid), 7, ctypes.c_char_p(struct.pack("QQ", 64, 64)), None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "set"


def become_root(_):
    os.setuid(0)
    held = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    if not int(held, 16):
        raise PermissionError(errno.EPERM, "a root without any capability")
    return f"root, with the capabilities {held}"


def fork(_):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return f"process {pid}"


def fork_bomb(most):
    pids = []
    try:
        for _ in range(int(most)):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            pids.append(pid)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"{len(pids)} processes"


def execute(program):
    """In place of this process, when there can be no other: a start that fails leaves it as it is."""
    if not hasattr(os, "posix_spawn"):
        raise OSError("no posix_spawn")
    try:
        pid = os.posix_spawn(program, [program], {})
    except OSError:
        call(59 if X86 else 221, ctypes.c_char_p(program.encode()), None, None)
        raise
    return f"exit code {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def swallow(megabytes):
    held = []
    for _ in range(int(megabytes) // 64):
        held.append(bytearray(b"x" * (64 << 20)))
    return f"{len(held) * 64} MB"


def swallow_and_die(megabytes):
    try:
        return swallow(megabytes)
    except MemoryError:
        sys.stderr.write("MemoryError\n")
        sys.stderr.flush()
        os.abort()


def mount(path):
    if libc.mount(b"none", path.encode(), b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    libc.umount2(path.encode(), 2)
    return "mounted"


def new_user_namespace(_):
    """By each of the three calls that make one; the process that tries is another, where there can be one."""
    if libc.unshare(0x08000000) != 0:  # of queues: with threads none of users may be made
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "made"


def clone_into_namespace(_):
    pid = call(56 if X86 else 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made"


def device(path):
    Path(tempfile.gettempdir(), "node").unlink(missing_ok=True)
    if not os.path.exists(path):
        path = tempfile.gettempdir() + "/node"
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 1))
    with open(path, "rb") as file:
        return f"read {file.read(4)!r}"


def make_device(_):
    path = tempfile.gettempdir() + "/full"
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 7))
    os.unlink(path)
    return "made"


def numbered(number):
    """A call by its number with arguments that it would refuse otherwise: only EPERM and ENOSYS are the filter's."""
    try:
        call(int(number), 0, 0, 0, 0, 0, 0)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            raise
    return "the kernel looked at it"


def open_files(_):
    kept = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            kept[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
    return json.dumps(kept)


def environment(_):
    return json.dumps(dict(os.environ))


def who(_):
    return json.dumps([os.getresuid(), os.getresgid(), os.getgroups()])


def other_abi(_):
    call(0x40000000 | 39)  # getpid, as x32 numbers it
    return "answered"


class Evil(echo_engine.Echo):
    name = "evil"

    def encode_chat(self, messages):
        self._asked = messages[-1]["content"]
        return super().encode_chat(messages)

    def generate(self, tokens, limit, chat, progress):
        word, _, rest = self._asked.partition(" ")
        if word == "escape":
            yield attempt(rest)
        else:
            yield from super().generate(tokens, limit, chat, progress)


def attempt(escape):
    """What came of `NAME ARGUMENT`."""
    name, _, argument = escape.partition(" ")
    try:
        return f"escaped: {globals()[name](argument)}"
    except (OSError, MemoryError) as error:
        return f"refused: {type(error).__name__}: {error}"


def by_itself(escapes):
    """Without an engine around it: one line of JSON for each attempt."""
    for escape in escapes:
        print(json.dumps(attempt(escape)), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--try":
        by_itself([word for word in sys.argv[2:] if word != "--apart"])
        sys.exit()
    place = Path(json.loads(sys.argv[sys.argv.index("--spec") + 1])["artifact"], "echo.json")
    if json.loads(place.read_text()).get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lifeline.tie_to_parent = lambda: None
    engine_http.main(Evil)
