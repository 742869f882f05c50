"""`edgewright-agent verify` and `repair`: artifacts at rest, looked at, and put right.

Looking needs nobody's leave. A running agent does the repair itself, asked through its folder; without one it is done
here, under the state folder's lock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from edgewright_agent import state_lock
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.config import AgentConfig
from edgewright_agent.content import LocalFirst
from edgewright_agent.identity import Identity
from edgewright_agent.inspection import Finding, inspect
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import Credentials, Link
from edgewright_agent.mandate_folder import MandateFolder
from edgewright_agent.mending import Mender
from edgewright_agent.slots import Slots
from edgewright_agent.state_lock import StateLock
from edgewright_agent.state_store import StateStore
from edgewright_agent.upkeep_folder import Report, UpkeepFolder

PATIENCE_S: Final = 60.0
_LOOK_S: Final = 0.25

Say = Callable[[str], None]


class NoArtifacts(Exception):
    """There is no agent's state where it was looked for."""


class NotRepaired(Exception):
    """Something is damaged still. The text says what, and why."""


def verify(config: AgentConfig, say: Say) -> list[Finding]:
    """Hash every artifact again; what is damaged. `say` gets what there is to tell, a line at a time.

    Raises NoArtifacts, OSError.
    """
    slots = _slots(config, clear=False)
    found = _look(slots, say)
    for finding in found:
        say(str(finding))
    return found


def repair(config: AgentConfig, say: Say) -> None:
    """Have whatever is damaged made anew. Raises NoArtifacts, NotRepaired, IdentityError, StateInUse, StateDamaged,
    OSError."""
    _slots(config, clear=False)
    if state_lock.is_running(config.state):
        report = _by_the_agent(config, say)
    else:
        with StateLock(config.state):
            report = _here(config, say)
    for line in report.done:
        say(line)
    if report.findings:
        raise NotRepaired("; ".join(report.why or map(str, report.findings)))
    if not report.done:
        say("nothing had to be mended")


def _slots(config: AgentConfig, *, clear: bool) -> Slots:
    if not (config.state / "artifacts").is_dir():
        raise NoArtifacts(f"{config.state / 'artifacts'} is missing; no agent has run on this state folder yet")
    return Slots(config.state, clear=clear)


def _look(slots: Slots, say: Say) -> list[Finding]:
    found: list[Finding] = []
    names = slots.names()
    for name in names:
        bad = inspect(slots, name)
        found += bad
        if not bad:
            say(f"artifact {name[:12]}: sound")
    return found


def _by_the_agent(config: AgentConfig, say: Say) -> Report:
    folder, mark, told = UpkeepFolder(config.state), secrets.token_hex(8), False
    folder.ask(mark)
    try:
        while (report := folder.report()).asked != mark:
            if not told:
                say("the agent that runs here does it, after the update that may be under way")
                told = True
            if not state_lock.is_running(config.state):
                raise NotRepaired("the agent stopped; ask again")
            time.sleep(_LOOK_S)
    finally:
        if folder.wanted() == mark:
            folder.take_back()
    return report


def _here(config: AgentConfig, say: Say) -> Report:
    slots, database = _slots(config, clear=True), config.state / "agent.sqlite"
    found = _look(slots, say)
    for finding in found:
        say(str(finding))
    folder, count = UpkeepFolder(config.state), len(slots.names())
    report = Report(time.time(), count, tuple(found))
    if found:
        identity = Identity.load(config.state)
        credentials = Credentials(identity.key, identity.certificate_path, identity.ca_path)
        store, journal = StateStore(database), DownloadJournal(database)
        link = Link(config.controller_address or identity.controller_address, credentials)
        try:
            source = LocalFirst(link)
            source.look_in(MandateFolder(config.state).content())
            mender = Mender(slots, journal, source, config.disk_reserve, PATIENCE_S)
            mended = mender.mend(found, store.targets(), Cancellation())
        finally:
            link.close()
            journal.close()
            store.close()
        report = Report(time.time(), count, mended.left, mended.done, mended.why)
    folder.keep(report)
    return report
