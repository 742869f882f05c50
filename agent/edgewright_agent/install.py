"""`edgewright-agent install` and `import`: a mandate, and perhaps the artifact, brought to this device by hand.

A running agent gets it through its folder and says what it thinks of it; then its update is followed to the end.
Without one, the mandate is checked and accepted here, under the state folder's lock, and acted upon when the agent
starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from edgewright_agent import state_lock, status
from edgewright_agent.agent import hw_classes
from edgewright_agent.carried_file import CarriedFile, ContentMissing
from edgewright_agent.config import AgentConfig
from edgewright_agent.identity import Identity
from edgewright_agent.mandate_folder import MandateFolder
from edgewright_agent.state_lock import StateLock
from edgewright_agent.state_store import StateStore
from edgewright_agent.trust import Assignment, MetadataStale, TrustRefused
from edgewright_agent.trust_store import TrustStore
from edgewright_contract import mandate as contract
from edgewright_contract.carried import Head
from edgewright_contract.mandate import MandateError

ANSWER_S: Final = 60.0
_LOOK_S: Final = 0.25
_SETTLED: Final = ("succeeded", "failed", "held")


class NotInstalled(Exception):
    """It does not come to serve here. The text says why."""


def install(config: AgentConfig, mandate: Path, content: Path | None, say: Callable[[str], None]) -> None:
    """Bring `mandate` to this device's agent. `say` gets what there is to tell, a line at a time.

    Returns when its release serves, or, without a running agent, when it is accepted. Raises NotInstalled,
    IdentityError, StateInUse, StateDamaged, OSError.
    """
    document = _read(mandate)
    if content is not None and not content.is_dir():
        raise NotInstalled(f"{content}: no such folder; --content names the one with objects and artifacts in it")
    _install(config, document, content, say)


def bring(config: AgentConfig, file: Path, mandate: Path | None, say: Callable[[str], None]) -> None:
    """Bring what `edgewright bundle export` wrote. `mandate`: else the one in the file, else the one beside it.

    All of it is read and checked before the agent hears of it. Raises as `install` does.
    """
    identity, content = Identity.load(config.state), CarriedFile(file)
    try:
        head, inside = content.head, content.mandate()
        _check_meant(file, head, identity)
        document = inside if inside and mandate is None else _read(mandate or _beside(file))
        _parsed(document, file)
        if head.base and not (config.state / "artifacts" / head.base).is_dir():
            raise NotInstalled(
                f"{file} has only what changed since artifact {head.base[:12]}, which is not on this device; export it"
                " without --since"
            )
        content.check(_Told("checked", say).progress)
    except ContentMissing as error:
        raise NotInstalled(str(error)) from error
    _install(config, document, file, say)


def _check_meant(file: Path, head: Head, identity: Identity) -> None:
    """So that the wrong stick is told before all of it is read. What counts is what the mandate says."""
    if head.fleet != identity.fleet:
        raise NotInstalled(f"{file} is for fleet {head.fleet}, and this device is of fleet {identity.fleet}")
    if head.device and head.device != identity.device:
        raise NotInstalled(f"{file} is for device {head.device}, and this is {identity.device}")


def _beside(file: Path) -> Path:
    path = file.with_name(f"{file.name}.mandate")
    if not path.exists():
        raise NotInstalled(f"{file} has no mandate in it, and {path} is not there; name one with --mandate")
    return path


class _Told:
    """Says how far something is, at each tenth: `what` so many bytes of so many."""

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what, self._say, self._tenths = what, say, 0

    def progress(self, done: int, of: int) -> None:
        tenths = 10 * done // max(of, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            self._say(f"{self._what} {done / 1e6:,.1f} of {of / 1e6:,.1f} MB")


def _install(config: AgentConfig, document: bytes, content: Path | None, say: Callable[[str], None]) -> None:
    identity = Identity.load(config.state)
    content = content.absolute() if content is not None else None
    if state_lock.is_running(config.state):
        _hand_over(config.state, document, content, say)
        return
    with StateLock(config.state):
        assignment = _accept(config, identity, document)
        folder = MandateFolder(config.state)
        folder.make()
        folder.keep_content(content)
    say(f"{_accepted(assignment.generation, _release(assignment))}; the agent installs it when it starts")


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        document = file.read(contract.MAX_FILE_BYTES + 1)
    _parsed(document, path)
    return document


def _parsed(document: bytes, path: Path) -> None:
    try:
        contract.parse(document)
    except MandateError as error:
        raise NotInstalled(f"{path}: {error}") from error


def _accept(config: AgentConfig, identity: Identity, document: bytes) -> Assignment:
    database = config.state / "agent.sqlite"
    trust, store = TrustStore.open(database), StateStore(database)
    try:
        holds = store.load().held
        found = trust.apply_mandate(document, identity, datetime.now(timezone.utc), holds, hw_classes(config))
    except (TrustRefused, MetadataStale) as error:
        raise NotInstalled(f"refused: {error}") from error
    finally:
        trust.close()
        store.close()
    if found.held:
        raise NotInstalled(_held(_release(found)))
    return found


def _hand_over(state: Path, document: bytes, content: Path | None, say: Callable[[str], None]) -> None:
    folder = MandateFolder(state)
    name = folder.hand(document, content)
    deadline = time.monotonic() + ANSWER_S
    while (word := folder.answer(name)) is None:
        if time.monotonic() > deadline:
            folder.take_back(name)
            raise NotInstalled(f"the agent does not take it from {state}; see its log")
        time.sleep(_LOOK_S)
    if "refused" in word:
        raise NotInstalled(f"refused: {word['refused']}")
    say(_accepted(word["generation"], word["release"][:12]))
    _follow(state, word, say)


def _follow(state: Path, word: dict[str, Any], say: Callable[[str], None]) -> None:
    """To the end of the update, which the agent's own deadlines bring."""
    told, coming = "", _Told("has", say)
    while True:
        seen = status.read(state)
        if seen["generation"] > word["generation"]:
            raise NotInstalled(f"generation {seen['generation']} took its place meanwhile")
        mine = seen["generation"] == word["generation"] and seen["release"] == word["release"]
        if mine and seen["outcome"] in _SETTLED and seen["step"] == "idle":
            if seen["outcome"] != "succeeded":
                raise NotInstalled(f"{seen['outcome']}: {seen['reason'] or seen['error']}")
            say(f"release {word['release'][:12]} serves")
            return
        if mine and seen["step"] != told:
            told = seen["step"]
            say(told)
        if mine and seen["step"] == "downloading":
            coming.progress(seen["done_bytes"], seen["total_bytes"])
        if not seen["running"]:
            raise NotInstalled("the agent stopped; it goes on with it when it starts")
        time.sleep(_LOOK_S)


def _accepted(generation: int, release: str) -> str:
    return f"accepted: generation {generation}, release {release}"


def _release(assignment: Assignment) -> str:
    return assignment.release.digest[:12] if assignment.release else "none"


def _held(release: str) -> str:
    return f"held: release {release} failed on this device before; `edgewright apply --again` lets it be tried again"
