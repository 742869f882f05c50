"""The agent as a process: every part made once, wired, started in order, stopped in the opposite one.

What served before a restart serves first, from this disk alone. Only then the controller is asked. Where the agent's
own state cannot be opened, what served last is served all the same, and the state is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from typing import Final

from edgewright_agent import memory
from edgewright_agent.agent import Agent
from edgewright_agent.config import AgentConfig
from edgewright_agent.database import StateDamaged
from edgewright_agent.front import Front
from edgewright_agent.identity import Identity, IdentityError
from edgewright_agent.recent_log import RecentLog
from edgewright_agent.slots import ArtifactDamaged
from edgewright_agent.state_lock import StateLock

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
_AGAIN_S: Final = 5.0  # before the state is tried again

_log = logging.getLogger(__name__)


def run(config: AgentConfig) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises IdentityError, StateInUse, StateDamaged, PortTaken, OSError before it is ready.
    """
    memory.begin_small()
    recent = RecentLog(_FORMAT)
    logging.basicConfig(level=logging.INFO, format=_FORMAT, stream=sys.stderr)
    logging.getLogger().addHandler(recent)
    with StateLock(config.state):
        identity = Identity.load(config.state)
        if config.device is not None and config.device != identity.device:
            raise IdentityError(
                f"{config.file}: device: {config.device!r}, but {config.state} is enrolled as {identity.device!r}; "
                "correct the one or set another state folder"
            )
        asyncio.run(_until_stopped(config, identity, recent))


async def _until_stopped(config: AgentConfig, identity: Identity, recent: RecentLog) -> None:
    loop, agent_runs = asyncio.get_running_loop(), asyncio.current_task()
    assert agent_runs is not None
    asked: list[bool] = []

    def stop() -> None:
        """Once: a second signal must not cut off the farewell."""
        if not asked:
            asked.append(agent_runs.cancel())

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: asyncio.run ends on Ctrl-C by itself
            loop.add_signal_handler(number, stop)
    front = Front(config)
    stop_all = front.stop
    try:
        agent = await _opened(lambda: Agent(config, identity, recent, front), front, identity.device)
        stop_all = agent.stop
        await agent.start()
        print(agent.ready_line, flush=True)  # noqa: T201 this line is for whoever waits until the agent is up
        await agent.work()
    except asyncio.CancelledError:
        _log.info("stopping")
    finally:
        await stop_all()


async def _opened(make: Callable[[], Agent], front: Front, device: str) -> Agent:
    """The agent, as soon as its state can be opened; until then, what served last is served.

    Raises what keeps the state from being opened, when nothing served here before, or that is damaged, too.
    """
    complaint = ""
    while True:
        try:
            return make()
        except (StateDamaged, OSError) as error:
            if not complaint:
                release = await _standing_by(front)
                if not release:
                    raise
                told = f"edgewright-agent {device}: {front.gateway.url} serves {release[:12]}"
                print(told, flush=True)  # noqa: T201 for whoever waits until the agent is up
            if str(error) != complaint:
                _log.error("%s. Until then this device serves what it served last, and changes nothing", error)
            complaint = str(error)
        await asyncio.sleep(_AGAIN_S)


async def _standing_by(front: Front) -> str:
    """The release that stands by, empty when none can."""
    try:
        return await front.stand_by()
    except (ArtifactDamaged, OSError) as error:
        _log.error("what served last cannot be served: %s", error)
        return ""
