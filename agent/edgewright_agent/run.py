"""The agent as a process: every part made once, wired, started in order, stopped in the opposite one.

What served before a restart serves first, from this disk alone. Only then the controller is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from typing import Final

from edgewright_agent import memory
from edgewright_agent.agent import Agent
from edgewright_agent.config import AgentConfig
from edgewright_agent.identity import Identity, IdentityError
from edgewright_agent.recent_log import RecentLog
from edgewright_agent.state_lock import StateLock

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


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
    agent = Agent(config, identity, recent)
    try:
        await agent.start()
        print(agent.ready_line, flush=True)  # noqa: T201 this line is for whoever waits until the agent is up
        await agent.work()
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("stopping")
    finally:
        await agent.stop()
