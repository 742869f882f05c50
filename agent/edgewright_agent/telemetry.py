"""One telemetry report: the gateway's window, and what the processes and the device use."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from edgewright_agent.engines.process import EngineFailed
from edgewright_agent.engines.supervision import Serving
from edgewright_agent.gateway.meter import Histogram, Snapshot
from edgewright_agent.lifecycle_state import Lifecycle, Step
from edgewright_contract.v1 import telemetry_pb2


class Gauges:
    """Reads the device. CPU percentages are since the last reading."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._agent = psutil.Process()
        psutil.cpu_percent(None)

    async def report(self, window: Snapshot, serving: Serving, model: str, spool_depth: int) -> telemetry_pb2.Telemetry:
        """The report of `window`. What cannot be read is left 0."""
        return telemetry_pb2.Telemetry(
            window_ms=round(window.window_s * 1000),
            requests=window.requests,
            errors=window.errors,
            rejected=window.rejected,
            prompt_tokens=window.prompt_tokens,
            output_tokens=window.output_tokens,
            decode_tokens_per_s=window.decode_tokens_per_s,
            request_s=_histogram(window.request_s),
            time_to_first_token_s=_histogram(window.time_to_first_token_s),
            active_requests=window.active_requests,
            engine_rss_bytes=await _engine_rss(serving),
            agent_rss_bytes=self._agent.memory_info().rss,
            cpu_percent=psutil.cpu_percent(None),
            memory_available_bytes=psutil.virtual_memory().available,
            disk_free_bytes=shutil.disk_usage(self._state).free,
            engine_restarts=serving.restarts,
            spool_depth=spool_depth,
            temperature_c=_temperature(),
            model=model,
        )


Serves = tuple[int, str] | None
"""(generation, active release); None while an update is under way."""


def serves(state: Lifecycle) -> Serves:
    """What serves at this moment."""
    return (state.generation, state.active) if state.step is Step.IDLE else None


def unsettled(*moments: Serves) -> bool:
    """Whether a window with these moments says nothing of one version. A change and back shows in the generation."""
    return None in moments or len(set(moments)) > 1


async def _engine_rss(serving: Serving) -> int:
    engine = serving.active
    if engine is None:
        return 0
    try:
        return (await engine.memory()).rss_bytes
    except EngineFailed:
        return 0  # it died just now; its keeper reports that


def _histogram(values: Histogram) -> telemetry_pb2.Histogram:
    return telemetry_pb2.Histogram(bounds=values.bounds, counts=values.counts, sum=values.sum)


def _temperature() -> float | None:
    """The hottest sensor in °C, None where the platform shows none."""
    sensors = getattr(psutil, "sensors_temperatures", None)
    if sensors is None:
        return None
    return max((one.current for group in sensors().values() for one in group), default=None)
