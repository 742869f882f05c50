"""The device's status: as it goes to the controller, and as `edgewright-agent status` shows it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgewright_agent import state_lock
from edgewright_agent.lifecycle_state import MAX_REASON, Fault, Lifecycle, Outcome, Step
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.upkeep_folder import UpkeepFolder
from edgewright_contract.v1 import agent_pb2

# Where the running agent answers, for whoever looks into its folder: the port may be one that the system chose.
ENDPOINT_FILE: Final = "endpoint"
# What the last engine, or the trial before there was one, was not kept from: a JSON list of names.
UNCONFINED_FILE: Final = "unconfined.json"
PROGRESS_FILE: Final = "progress.json"
_PROGRESS: Final = ("done_bytes", "total_bytes", "bytes_per_s", "remaining_s")
_MAX_TEXT: Final = 200
MAX_DAMAGED: Final = 8
_PAUSED: Final = "downloads are paused on request; what needs none goes on"

Known = Callable[[str], "KnownRelease | None"]


class NoState(Exception):
    """There is no agent's state where it was looked for."""


@dataclass(frozen=True)
class Running:
    """What only the running agent knows. Bytes for the download, milliseconds of the device's clock."""

    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: float = 0.0
    remaining_s: int = 0
    trouble: str = ""
    engine: str = ""
    accelerator: str = ""
    endpoint: str = ""
    started_unix_ms: int = 0
    unconfined: tuple[str, ...] = ()
    damaged: Sequence[str] = ()


def compose(state: Lifecycle, known: Known, running: Running) -> agent_pb2.DeviceStatus:
    """The whole status. Raises StateDamaged when `known` does."""
    state = _told(state)
    active = known(state.active) if state.active else None
    downloading = state.step in (Step.PLANNING, Step.DOWNLOADING)
    moving = state.step is Step.DOWNLOADING and not state.paused
    return agent_pb2.DeviceStatus(
        generation=state.generation,
        release=state.release,
        step=agent_pb2.Step.Name(state.step.value),
        outcome=agent_pb2.Outcome.Name(state.outcome.value),
        error=agent_pb2.ErrorCode.Name(state.fault.value),
        reason=_shortened(reason(state) or (running.trouble if moving else ""), MAX_REASON),
        done_bytes=running.done_bytes if downloading else 0,
        total_bytes=running.total_bytes if downloading else 0,
        active_release=state.active,
        active_artifact=active.release.artifact if active else "",
        active_model=active.release.model if active else "",
        previous_release=state.previous,
        held_releases=state.held,
        sequence=state.sequence,
        engine=_shortened(running.engine, _MAX_TEXT) if state.active else "",
        accelerator=_shortened(running.accelerator, _MAX_TEXT) if state.active else "",
        endpoint=running.endpoint,
        started_unix_ms=running.started_unix_ms,
        unconfined=running.unconfined,
        damaged=[_shortened(one, _MAX_TEXT) for one in running.damaged[:MAX_DAMAGED]],
        downloads_paused=state.paused,
        bytes_per_s=int(running.bytes_per_s) if moving else 0,
        remaining_s=running.remaining_s if moving else 0,
    )


def reason(state: Lifecycle) -> str:
    """Why the last update failed, or else why one may be waiting."""
    return state.reason or (_PAUSED if state.paused else "")


def read(folder: Path) -> dict[str, Any]:
    """The saved state of the agent in `folder`, running or not, as plain values. Raises NoState, StateDamaged."""
    file = folder / "agent.sqlite"
    if not file.is_file():
        raise NoState(f"{file} is missing; enrol the device first: edgewright-agent enroll --token …")
    store = StateStore(file)
    try:
        state = _told(store.load())
        active = store.known(state.active) if state.active else None
    finally:
        store.close()
    endpoint, running = folder / ENDPOINT_FILE, state_lock.is_running(folder)
    report = UpkeepFolder(folder).report()
    return {
        "running": running,
        "endpoint": endpoint.read_text() if running and endpoint.is_file() else "",
        "generation": state.generation,
        "release": state.release,
        "step": state.step.name.lower(),
        "outcome": state.outcome.name.lower(),
        "error": state.fault.name.lower() if state.fault.value else "",
        "active_release": state.active,
        "active_model": active.release.model if active else "",
        "active_artifact": active.release.artifact if active else "",
        "downloads_paused": state.paused,
        "previous_release": state.previous,
        "held_releases": list(state.held),
        "unconfined": unconfined(folder),
        **_progress(folder, state, running=running),
        "verified_unix": report.ended if report.artifacts else 0.0,
        "damaged": [str(finding) for finding in report.findings],
        "not_mended": list(report.why),
    }


def leave_progress(folder: Path, now: agent_pb2.DeviceStatus) -> None:
    """Leave how far the download is, for whoever looks into the folder. Needs to survive nothing. Raises OSError."""
    document = {key: getattr(now, key) for key in ("generation", "reason", *_PROGRESS)}
    beside = folder / f"{PROGRESS_FILE}.new"
    beside.write_text(json.dumps(document))
    os.replace(beside, folder / PROGRESS_FILE)


def _progress(folder: Path, state: Lifecycle, *, running: bool) -> dict[str, Any]:
    """How far the download that runs is and what is wrong with it; zeros when none does, or it has not said yet."""
    nothing = dict.fromkeys(_PROGRESS, 0) | {"reason": reason(state)}
    if state.step is not Step.DOWNLOADING or state.paused or not running:
        return nothing
    try:
        left = json.loads((folder / PROGRESS_FILE).read_text())
        numbers = {key: int(left[key]) for key in _PROGRESS}
        same = left["generation"] == state.generation
        return numbers | {"reason": reason(state) or str(left["reason"])} if same else nothing
    except (OSError, ValueError, KeyError, TypeError):
        return nothing


def unconfined(folder: Path) -> list[str] | None:
    """What engines here are not kept from; None: no agent has run on this state yet, or it left nothing legible."""
    try:
        names = json.loads((folder / UNCONFINED_FILE).read_text())
    except (OSError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _told(state: Lifecycle) -> Lifecycle:
    """What the device says of itself: a newer generation that it refused is one that failed here."""
    if state.refused <= state.generation:
        return state
    return replace(
        state,
        generation=state.refused,
        release="",
        outcome=Outcome.FAILED,
        fault=Fault.METADATA_REFUSED,
        reason=state.refusal,
    )


def _shortened(text: str, most: int) -> str:
    """At most `most` bytes of UTF-8, on one line."""
    return " ".join(text.split()).encode()[:most].decode("utf-8", "ignore")
