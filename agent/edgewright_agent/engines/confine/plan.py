"""What the agent tells the launcher to allow one engine, and what the launcher tells back. Both go as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

OWN_USER: Final = "own user"
FILES: Final = "files"
NETWORK: Final = "network"
OWN_PORT: Final = "network (its own port's number, at any address)"
UNIX_SOCKETS: Final = "local sockets of other programs"
SYSTEM_CALLS: Final = "system calls"
MEMORY: Final = "memory limit"
PROCESSES: Final = "number of processes"

REFUSED_EXIT: Final = 78  # the launcher's exit code when it did not start the child


@dataclass(frozen=True)
class Plan:
    """Everything that one child may do; what is not named it may not.

    Paths are absolute; those that are missing are passed over. `needed` are those without which it cannot work; of
    `listed` folders only the names in them may be read.
    `uid` 0: the child stays the agent's user.
    `memory_bytes` 0: no limit is known. `cgroup`: the folder of a control group that already has the limits.
    `own_server`: the runtime opens and asks a server of its own, at `port`. `watcher`: a program to start beside the
    child, which reads what the child writes and tells it in the end. `parent`: the agent's process id. `require`:
    better no engine than one for which a measure is missing.
    """

    parent: int
    needed: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    memory_bytes: int = 0
    data_limit: bool = True
    cgroup: str = ""
    watcher: tuple[str, ...] = ()
    unix_sockets: bool = False
    own_server: bool = False
    port: int = 0
    require: bool = False

    def to_json(self) -> str:
        """For the launcher's command line; no secret is in it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """What `to_json` gave. Raises ValueError, TypeError, KeyError."""
        document = json.loads(text)
        values: dict[str, Any] = {field.name: _frozen(document[field.name]) for field in fields(cls)}
        return cls(**values)


@dataclass(frozen=True)
class Report:
    """What became of the plan: the names of what does not confine the child, and why, in words for a log.

    `apart`: the child has a network of its own, in which there is nothing but itself.
    """

    unconfined: tuple[str, ...]
    why: tuple[str, ...]
    apart: bool

    def to_json(self) -> str:
        """The launcher's one line on standard output."""
        return json.dumps({"confinement": asdict(self)})

    @classmethod
    def from_json(cls, line: bytes | str) -> Report:
        """Raises ValueError: that line is not a launcher's."""
        document: Any = json.loads(line)
        try:
            one = document["confinement"]
            return cls(tuple(map(str, one["unconfined"])), tuple(map(str, one["why"])), bool(one["apart"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{line[:80]!r} is not the launcher's account") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
