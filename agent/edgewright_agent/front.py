"""What answers requests on this device: the gateway, and the engines behind it. It needs nothing of the agent's state.

So it can serve what served last while that state cannot be opened, and the agent, once it has it, goes on with the same
gateway and the same engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from edgewright_agent import last_served
from edgewright_agent.config import AgentConfig
from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_agent.engines.confinement import Confinement
from edgewright_agent.engines.supervision import EngineEvent, Serving
from edgewright_agent.gateway import Gateway, Meter, Routes
from edgewright_agent.slots import Slots
from edgewright_contract.engine import EngineSpec
from edgewright_contract.release import Release

_log = logging.getLogger(__name__)


class Front:
    """Made once in a process, on its event loop. `on_event` is told what happens to the active engine."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self.settings = engine_settings(config)
        self.meter, self.routes = Meter(time.monotonic()), Routes()
        self.confinement = Confinement(config.confinement, config.state)
        self.on_event: Callable[[EngineEvent], None] = lambda event: _log.info("%s", event.detail)
        self.serving = Serving(
            self.settings,
            config.state / "engines",
            self.routes,
            self._tell,
            confinement=self.confinement,
        )
        self.gateway = Gateway(self.routes, self.meter, self.serving.suspect)

    async def open(self) -> None:
        """Listen, if it does not yet. Raises PortTaken."""
        if not self.gateway.url:
            await self.gateway.start(self._config.gateway_host, self._config.gateway_port)
            await asyncio.to_thread(self.confinement.sweep)

    async def stand_by(self) -> str:
        """Serve what served last, verified once more, by no more than its own file: its release, empty when nothing
        did. Raises PortTaken, ArtifactDamaged, OSError."""
        release = last_served.read(self._config.state)
        if release is None:
            return ""
        await self.open()
        slots = Slots(self._config.state)
        await asyncio.to_thread(slots.verify, release.artifact)
        await self.serving.resume(spec_of(release, slots))
        return release.digest

    def _tell(self, event: EngineEvent) -> None:
        self.on_event(event)

    async def stop(self) -> None:
        """End every child, and listen no more."""
        await self.gateway.stop()
        await self.serving.stop(0)


def spec_of(release: Release, slots: Slots) -> EngineSpec:
    """What an engine is started with to serve this release."""
    options = {key: value for key, value in release.options.items() if key != "served_name"}  # not the engine's
    artifact = str(slots.artifact(release.artifact))
    return EngineSpec(
        release.runtime, artifact, release.served_name, release.accelerator, options, release.memory_bytes
    )


def engine_settings(config: AgentConfig) -> dict[str, EngineSettings]:
    """How each enabled runtime is served."""
    return {
        runtime: EngineSettings(python=engine.python, threads=engine.threads, engine=engine.engine)
        for runtime, engine in config.engines.items()
        if engine.enabled
    }
