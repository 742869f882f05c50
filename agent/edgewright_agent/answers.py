"""How this device answers each kind of request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgewright_agent.engines.process import EngineFailed
from edgewright_agent.engines.supervision import ProbeFailed, Serving
from edgewright_agent.lifecycle_state import DownloadsPaused, DownloadsResumed, HoldReleased
from edgewright_agent.outbox import Outbox
from edgewright_agent.recent_log import without_secrets
from edgewright_agent.requests import Handler, RequestFailed
from edgewright_agent.state_store import StateStore
from edgewright_agent.update import Updates
from edgewright_contract import digest
from edgewright_contract.v1 import agent_pb2


def handlers(
    serving: Serving, store: StateStore, updates: Updates, outbox: Outbox, log: Callable[[], Sequence[str]]
) -> dict[int, Handler]:
    """Kind of request → what does it. `log` gives the agent's own recent lines, without secrets."""

    async def probe_now(_: str) -> str:
        engine, known = serving.active, store.known(updates.state.active)
        if engine is None or known is None:
            raise RequestFailed("no version is active")
        try:
            results = await serving.probe_all(engine, known.release.probes)
        except (ProbeFailed, EngineFailed) as error:
            raise RequestFailed(str(error)) from error
        return f"{len(results)} probes passed"

    async def send_logs(_: str) -> str:
        engine = serving.active
        of_engine = engine.log.last_lines() if engine is not None else ("no engine runs",)
        return "\n".join(["-- agent", *log(), "-- engine", *map(without_secrets, of_engine)])

    async def rebirth(_: str) -> str:
        outbox.rebirth()
        return ""

    async def release_hold(argument: str) -> str:
        if not digest.is_sha256(argument):
            raise RequestFailed(f"{argument!r} is not a release")
        held = argument in updates.state.held
        await updates.feed(HoldReleased(argument))
        return "released" if held else "was not held"

    async def pause_downloads(_: str) -> str:
        await updates.feed(DownloadsPaused())
        return "no more blocks are fetched until downloads are resumed"

    async def resume_downloads(_: str) -> str:
        await updates.feed(DownloadsResumed())
        return ""

    kinds = agent_pb2.DeviceRequest
    return {
        kinds.KIND_PROBE_NOW: probe_now,
        kinds.KIND_SEND_LOGS: send_logs,
        kinds.KIND_PAUSE_DOWNLOADS: pause_downloads,
        kinds.KIND_RESUME_DOWNLOADS: resume_downloads,
        kinds.KIND_REBIRTH: rebirth,
        kinds.KIND_RELEASE_HOLD: release_hold,
    }
