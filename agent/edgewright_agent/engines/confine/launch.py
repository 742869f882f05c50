"""Confines this process and becomes the engine's child: `launch.py PLAN [COMMAND…]`.

Each measure is tried, since what a kernel, a container or a service manager lets through is known only then. What is
missing is told in one line on standard output, before the child's own. Without a command it tells and ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))

from edgewright_agent.engines.confine import landlock, namespaces, plan, privileges, seccomp, syscalls
from edgewright_agent.engines.confine.plan import Plan, Report

# The child's ends of the watcher's input and output, and its process id.
WATCHER = "EDGEWRIGHT_ENGINE_WATCHER"


class Confining:
    """The measures, one after the other. `missing` says which did not come to be, and why; `granted` what this engine
    is let do because it cannot work without."""

    _watcher: subprocess.Popen[bytes] | None = None

    def __init__(self, wanted: Plan) -> None:
        self._plan = wanted
        self.missing: dict[str, str] = {}
        self.granted: dict[str, str] = {}
        self.apart = False

    def all(self) -> None:
        """In this order: each needs what the later ones take away. Raises OSError when the agent is gone."""
        wanted = self._plan
        privileges.die_with(wanted.parent)
        self._limits()
        self.apart = namespaces.possible()
        if self.apart:
            namespaces.apart()
        rules = self._rules()
        own_user = self._own_user()
        privileges.no_new_privileges()
        if rules is not None:
            self._try(plan.FILES, rules.enforce)
        if not own_user and os.geteuid() == 0:
            self._try(plan.OWN_USER, privileges.drop_capabilities)
        privileges.die_with(wanted.parent)  # a change of user has undone it
        self._watch()  # after the filter nothing can be started; all else confines the watcher too
        self._reach(filtered=self._filter())

    def _limits(self) -> None:
        wanted = self._plan
        grouped = bool(wanted.cgroup) and self._try(plan.MEMORY, self._join)
        by_data = wanted.data_limit and not grouped
        if not wanted.memory_bytes:
            self.missing[plan.MEMORY] = "the release does not say how much it needs"
        elif not grouped and not by_data:
            self.missing[plan.MEMORY] = "no control group is given to the agent, and a driver's mappings know no limit"
        elif by_data:
            self.missing.pop(plan.MEMORY, None)
        privileges.limit(wanted.memory_bytes if by_data else 0, count_processes=bool(wanted.uid))

    def _join(self) -> None:
        with open(os.path.join(self._plan.cgroup, "cgroup.procs"), "w", encoding="ascii") as members:
            members.write("0")

    def _rules(self) -> landlock.Ruleset | None:
        wanted, version = self._plan, landlock.abi()
        if not version:
            self.missing[plan.FILES] = "this kernel has no Landlock"
            return None
        try:
            # In a network of its own a port needs no rule.
            rules = landlock.Ruleset(version, ports=not self.apart)
            rules.allow(wanted.listed, landlock.READ_DIR)
            rules.allow(wanted.read, landlock.READ)
            rules.allow(wanted.execute, landlock.READ | landlock.EXECUTE)
            rules.allow(wanted.devices, landlock.DEVICE)
            rules.allow_all_but_nodes(wanted.write)
            if wanted.port:
                rules.allow_port(wanted.port)
        except OSError as error:
            self.missing[plan.FILES] = str(error)
            return None
        return rules

    def _own_user(self) -> bool:
        wanted = self._plan
        if not wanted.uid:
            self.missing[plan.OWN_USER] = "the agent is not root, and so cannot give it one"
            return False
        return self._try(plan.OWN_USER, self._become)

    def _become(self) -> None:
        wanted = self._plan
        who = (wanted.uid, wanted.gid, wanted.groups)
        closed = privileges.unreadable(*who, wanted.needed)
        if closed:
            raise OSError(f"user {wanted.uid} cannot read {closed}")
        privileges.become(*who, wanted.write)

    def _watch(self) -> None:
        if not self._plan.watcher:
            return
        watcher = subprocess.Popen(self._plan.watcher, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        handles = [os.dup(stream.fileno()) for stream in (watcher.stdin, watcher.stdout)]
        for handle in handles:
            os.set_inheritable(handle, True)
        os.environ[WATCHER] = ",".join(map(str, (*handles, watcher.pid)))
        self._watcher = watcher  # it outlives this object, as this program is replaced

    def _filter(self) -> bool:
        wanted, processor = self._plan, syscalls.architecture(os.uname().machine)
        if processor is None or sys.maxsize < 1 << 32:
            self.missing[plan.SYSTEM_CALLS] = f"there is no filter for {os.uname().machine}"
            return False
        allowed = seccomp.Allowed(os.getpid(), wanted.own_server, wanted.unix_sockets)
        return self._try(plan.SYSTEM_CALLS, lambda: seccomp.install(processor, allowed))

    def _reach(self, *, filtered: bool) -> None:
        """What the network, and programs on this machine, are worth after all that."""
        wanted = self._plan
        if not filtered:
            self.missing[plan.UNIX_SOCKETS] = "no filter of system calls"
            if plan.OWN_USER in self.missing and not wanted.cgroup:
                self.missing[plan.PROCESSES] = "no filter of system calls, no user of its own, no control group"
        elif wanted.unix_sockets:
            self.granted[plan.UNIX_SOCKETS] = "an accelerator's driver may need them"
        if self.apart or (filtered and not wanted.own_server):
            return
        by_port = filtered and plan.FILES not in self.missing and landlock.abi() >= landlock.PORTS_SINCE
        self.missing[plan.OWN_PORT if by_port else plan.NETWORK] = "this system gives it no network of its own"

    def _try(self, name: str, measure: Callable[[], None]) -> bool:
        try:
            measure()
        except OSError as error:
            self.missing[name] = str(error)
            return False
        return True


def main(arguments: list[str]) -> int:
    """Does not return when there is a command and it starts."""
    wanted = Plan.from_json(arguments[0])
    command = arguments[1:]
    confining = Confining(wanted)
    try:
        confining.all()
    except OSError as error:
        return _say(f"not started, because it cannot be confined: {error}")
    missing = [f"{name}: {reason}" for name, reason in confining.missing.items()]
    if wanted.require and missing and command:
        advice = 'engines.confinement = "best" would start it all the same'
        return _say(f"not started, because this does not confine it: {'; '.join(missing)}; {advice}")
    why = (*missing, *(f"{name}: {reason}" for name, reason in confining.granted.items()))
    report = Report((*confining.missing, *confining.granted), why, confining.apart)
    os.write(1, report.to_json().encode() + b"\n")
    if not command:
        return 0
    if confining.apart:
        command.append("--apart")
    try:
        os.execve(command[0], command, os.environ)  # noqa: S606 there is no shell, as it should be
    except OSError as error:
        return _say(f"{command[0]} did not start: {error.strerror}")


def _say(what: str) -> int:
    os.write(2, f"edgewright: {what}\n".encode())
    return plan.REFUSED_EXIT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
