"""The agent's parts, wired together. What each of them does is in its own file."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Final

import psutil

from edgewright_agent import certificate_life, inventory, last_served, memory, status
from edgewright_agent.acts import DeviceActs
from edgewright_agent.answers import handlers
from edgewright_agent.check_in import CheckIns, Sources
from edgewright_agent.config import AgentConfig
from edgewright_agent.content import LocalFirst
from edgewright_agent.database import StateDamaged
from edgewright_agent.engines import accelerator
from edgewright_agent.engines.confinement import EVERYTHING
from edgewright_agent.engines.supervision import EngineEvent, EventKind
from edgewright_agent.front import Front
from edgewright_agent.holdings import Holdings
from edgewright_agent.identity import Identity
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import (
    ActiveBroken,
    ActiveServes,
    Fault,
    Lifecycle,
    Outcome,
    RunningChanged,
    Step,
)
from edgewright_agent.link import Credentials, Link
from edgewright_agent.mandate_folder import MandateFolder
from edgewright_agent.mandates import Mandates
from edgewright_agent.mending import Mender
from edgewright_agent.outbox import Outbox
from edgewright_agent.recent_log import RecentLog
from edgewright_agent.renewing import Renewing
from edgewright_agent.requests import Requests
from edgewright_agent.slots import Slots
from edgewright_agent.state_store import StateStore
from edgewright_agent.telemetry import Gauges, serves, unsettled
from edgewright_agent.trust import Assignment, Repository
from edgewright_agent.trust_store import HeldVersion, TrustStore
from edgewright_agent.update import ActFailed, Updates
from edgewright_agent.upkeep import Upkeep
from edgewright_agent.upkeep_folder import UpkeepFolder
from edgewright_contract.release import hw_class
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, telemetry_pb2

# So many deaths or failed starts in a row, and the active version is given up for the previous one.
_BROKEN_AFTER: Final = 5
_INVENTORY_S: Final = 600.0
_PATIENCE_S: Final = 300.0  # with a line that is down, before a repair is put off
_AGAIN_S: Final = 5.0  # before what could not be saved is brought again

_EVENTS: Final = {
    EventKind.STARTED: telemetry_pb2.Event.KIND_ENGINE_STARTED,
    EventKind.EXITED: telemetry_pb2.Event.KIND_ENGINE_EXITED,
    EventKind.RESTARTED: telemetry_pb2.Event.KIND_ENGINE_RESTARTED,
    EventKind.RESTART_FAILED: telemetry_pb2.Event.KIND_ENGINE_EXITED,
}

_log = logging.getLogger(__name__)


class Agent:
    """Made once in a process, on its event loop: `start`, then `work` until cancelled, then `stop`."""

    def __init__(self, config: AgentConfig, identity: Identity, log: RecentLog, front: Front) -> None:
        """Opens the state. `log` has the agent's own last lines; `front` may serve already.

        Raises StateDamaged, OSError.
        """
        self._config, self._identity = config, identity
        state, database = config.state, config.state / "agent.sqlite"
        settings = self._settings = front.settings
        self._started_ms = int(time.time() * 1000)
        self._store, self._journal, self._slots = StateStore(database), DownloadJournal(database), Slots(state)
        self._trust = DeviceTrust(TrustStore.open(database), identity, hw_classes(config))
        address = config.controller_address or identity.controller_address
        self._floor = self._trust.passed()
        self._link = Link(address, _credentials(identity), self._why_down)
        content = LocalFirst(self._link)
        self._front, self._meter, self._confinement = front, front.meter, front.confinement
        self._serving, self._gateway = front.serving, front.gateway
        # Before this start has shown it, what the last one showed; nothing confines until the contrary is known.
        known = status.unconfined(state)
        self._unconfined = EVERYTHING if known is None else tuple(known)
        mqtt = (config.mqtt_address or identity.mqtt_address) if config.mqtt_enabled else ""
        self._outbox = Outbox(state, replace(identity, mqtt_address=mqtt), lambda _: self._wake())
        self._holdings = Holdings(self._store, self._slots, self._journal, config.disk_quota)
        self._acts = DeviceActs(
            self._store,
            self._slots,
            self._journal,
            source=content,
            serving=self._serving,
            settings=settings,
            holdings=self._holdings,
            reserve=config.disk_reserve,
            on_progress=self._progressed,
            on_wait=self._waits,
            on_trouble=lambda: self._aside(self._note_trouble()),
            on_activated=self._trust.activated,
            make_way=self._give_way,
            on_serving=functools.partial(last_served.note, state),
        )
        self._updates = Updates(self._store, self._acts, self._changed)
        self._shown = self._updates.state
        self._check_state()
        self._requests = Requests(
            handlers(self._serving, self._store, self._updates, self._outbox, log.lines),
            on_late=self._wake,
        )
        self._check_ins = CheckIns(
            self._link,
            self._trust,
            self._updates,
            reports=self._outbox,
            requests=self._requests,
            sources=Sources(self.status, self._inventory),
            every_s=config.check_in_s,
        )
        mandates = MandateFolder(state)
        mandates.make()
        content.look_in(mandates.content())
        self._mandates = Mandates(mandates, self._trust, self._updates, content.look_in)
        self._upkeep = Upkeep(
            UpkeepFolder(state),
            self._slots,
            self._store,
            Mender(self._slots, self._journal, content, config.disk_reserve, _PATIENCE_S),
            every_s=config.verify_every_s,
            idle=lambda: self._updates.state.step is Step.IDLE,
            on_news=lambda: self._aside(self._tell(RunningChanged())),
        )
        self._renewing = Renewing(
            state,
            identity,
            self._link,
            open_line=lambda credentials: Link(address, credentials, self._why_down),
            on_renewed=self._renewed,
        )
        self._seen: tuple[float, agent_pb2.Inventory] | None = None
        self._side_tasks: set[asyncio.Task[None]] = set()

    @property
    def ready_line(self) -> str:
        """What a person, or a service manager, reads when the agent is up."""
        serving = self._updates.state.active[:12] or "nothing yet"
        return f"edgewright-agent {self._identity.device}: {self._gateway.url} serves {serving}"

    def status(self) -> agent_pb2.DeviceStatus:
        """The device's status now. Raises StateDamaged."""
        info, download, now = self._acts.info, self._acts.download, time.monotonic()
        running = status.Running(
            done_bytes=download.done,
            total_bytes=download.total,
            bytes_per_s=download.pace.bytes_per_s(now),
            remaining_s=download.pace.remaining_s(download.total, now),
            trouble=download.trouble,
            engine=f"{info.engine} {info.version}" if info else "",
            accelerator=accelerator.told(info) if info else "",
            endpoint=self._gateway.url,
            started_unix_ms=self._started_ms,
            unconfined=self._unconfined,
            damaged=[str(finding) for finding in self._upkeep.findings],
        )
        return status.compose(self._updates.state, self._store.known, running)

    async def start(self) -> None:
        """Listen, serve what served, go on with what was going on. Raises PortTaken, StateDamaged."""
        await self._front.open()
        self._front.on_event = self._engine_event
        self._note_endpoint()
        self._outbox.start()
        found = await self._start_active()
        if self._serving.active is None:  # an engine that runs has shown it by its own start
            self._note_unconfined(await asyncio.to_thread(self._confinement.unconfined))
        await self._updates.resume()
        if found is not None:
            await self._tell(found)  # at once, so that the first status says it
        self._say_birth()
        memory.give_back()

    async def work(self) -> None:
        """Check in, look for mandates, report, keep certificate and artifacts good until cancelled."""
        await asyncio.gather(
            self._check_ins.run(), self._mandates.run(), self._report(), self._renewing.run(), self._upkeep.run()
        )

    async def stop(self) -> None:
        """Say goodbye and end every child. Safe after a start that failed in the middle."""
        await self._requests.stop()
        await self._updates.stop()
        for task in list(self._side_tasks):
            task.cancel()
        await self._front.stop()
        await asyncio.to_thread(self._outbox.stop)
        self._renewing.stop()
        self._link.close()
        self._trust.close()
        self._journal.close()
        self._store.close()

    async def _give_way(self) -> None:
        await self._upkeep.give_way()

    def _wake(self) -> None:
        self._check_ins.wake()

    def _renewed(self, identity: Identity) -> None:
        """Connections keep the certificate with which they were made."""
        self._identity = identity
        self._link.use(_credentials(identity))
        self._outbox.reconnect()
        self._check_ins.wake()

    def _why_down(self) -> str:
        return certificate_life.trouble(self._identity.life, self._floor, datetime.now(timezone.utc))

    def _check_state(self) -> None:
        """What serves, or should, is known, also where the database lost it without noticing. Raises StateDamaged."""
        state = self._updates.state
        if not state.sequence and last_served.read(self._config.state) is not None:
            what = "the saved lifecycle is lost; move the file away and enrol the device again"
            raise StateDamaged(f"{self._config.state / 'agent.sqlite'}: {what}")
        if state.active:
            self._store.known(state.active)

    async def _start_active(self) -> ActiveBroken | ActiveServes | None:
        """How it went; None when nothing was active, or when its engine will be started again."""
        active = self._updates.state.active
        if not active:
            return None
        try:
            await self._acts.start_active(self._updates.state)
        except ActFailed as error:
            _log.error("the active version cannot be started: %s", error)
            return ActiveBroken(active, error.fault, error.reason)
        return ActiveServes(active) if self._serving.active is not None else None

    async def _report(self) -> None:
        """Telemetry, at the same pace for ever."""
        gauges = Gauges(self._config.state)
        began = serves(self._updates.state)
        while True:
            await asyncio.sleep(self._config.telemetry_s)
            window = self._meter.snapshot(time.monotonic())
            before, began = began, serves(self._updates.state)
            try:
                # The model by its id, as the manifest has it; clients may know it under another name.
                model = self.status().active_model
                report = await gauges.report(window, self._serving, model, self._outbox.depth())
            except (OSError, psutil.Error, StateDamaged) as error:
                _log.warning("no telemetry this time: %s", error)
            else:
                # The envelope says what serves at this moment.
                report.unsettled = unsettled(before, began, serves(self._updates.state))
                self._outbox.telemetry(report)

    def _inventory(self) -> agent_pb2.Inventory:
        """Looked at now and then: it changes when somebody installs something, and asking costs a process."""
        now = time.monotonic()
        if self._seen is None or now - self._seen[0] > _INVENTORY_S:
            reserve = self._config.disk_reserve - self._holdings.spare_bytes()
            self._seen = (now, inventory.look(self._config.state, self._settings, reserve))
        return self._seen[1]

    def _changed(self, state: Lifecycle) -> None:
        before, self._shown = self._shown, state
        self._outbox.update(self.status())
        if state.outcome is Outcome.FAILED and before.outcome is not Outcome.FAILED:
            kind = {
                Fault.PROBE_FAILED: telemetry_pb2.Event.KIND_PROBE_FAILED,
                Fault.DISK_FULL: telemetry_pb2.Event.KIND_DISK_FULL,
            }.get(state.fault, telemetry_pb2.Event.KIND_ROLLED_BACK)
            self._outbox.event(kind, f"release {state.release[:12]}: {state.reason}")
        if state.active != before.active:
            if before.falling_back:
                told = f"release {before.active[:12]} gave way to the one before: {before.broken_reason}"
                self._outbox.event(telemetry_pb2.Event.KIND_ROLLED_BACK, told)
            self._say_birth()
        if state.step is Step.IDLE and before.step is not Step.IDLE:
            memory.give_back()
        if _worth_a_check_in(before) != _worth_a_check_in(state):
            self._check_ins.wake()

    def _say_birth(self) -> None:
        try:
            now = self.status()
        except StateDamaged as error:
            _log.error("no birth is reported: %s", error)
            return
        self._outbox.birth(now.endpoint, now.engine, now.accelerator, now)

    def _note_endpoint(self) -> None:
        try:
            (self._config.state / status.ENDPOINT_FILE).write_text(self._gateway.url)
        except OSError as error:
            _log.warning("`edgewright-agent status` on this device may not say where it serves: %s", error)

    def _note_unconfined(self, names: tuple[str, ...]) -> None:
        """For the status here and there: what the engine that serves is not kept from."""
        if names == self._unconfined and (self._config.state / status.UNCONFINED_FILE).exists():
            return
        self._unconfined = names
        try:
            (self._config.state / status.UNCONFINED_FILE).write_text(json.dumps(names))
        except OSError as error:
            _log.warning("the status on this device may not say what engines are not kept from: %s", error)

    def _engine_event(self, event: EngineEvent) -> None:
        _log.info("%s", event.detail)
        if event.kind in (EventKind.STARTED, EventKind.RESTARTED) and self._serving.active is not None:
            self._note_unconfined(self._serving.active.unconfined)
        kind = _EVENTS.get(event.kind)
        if kind is not None:
            self._outbox.event(kind, event.detail)
        active = self._updates.state.active
        if event.kind is EventKind.RESTARTED:
            # One that died many times in a row is believed only after the whole update, see lifecycle.
            self._aside(self._came_back(ActiveServes(active) if event.failures < _BROKEN_AFTER else None))
        elif event.failures and event.failures % _BROKEN_AFTER == 0:
            self._aside(self._tell(ActiveBroken(active, Fault.ENGINE_FAILED, event.detail)))

    async def _came_back(self, news: ActiveServes | None) -> None:
        """What runs may run on something else now, for example after a driver's fault."""
        before = self._acts.info
        await self._acts.learn_engine()
        if news is not None:
            await self._tell(news)
        if self._acts.info != before:
            await self._tell(RunningChanged())
            self._say_birth()

    async def _tell(self, news: ActiveBroken | ActiveServes | RunningChanged) -> None:
        """Bring this to the lifecycle: now, or when the disk lets it be saved."""
        try:
            await self._updates.feed(news)
        except StateDamaged as error:
            _log.error("%s; trying again", error)
            self._aside(self._tell_later(news))

    async def _tell_later(self, news: ActiveBroken | ActiveServes | RunningChanged) -> None:
        await asyncio.sleep(_AGAIN_S)
        await self._tell(news)

    def _progressed(self) -> None:
        self._aside(self._note_progress())

    async def _note_trouble(self) -> None:
        await self._tell(RunningChanged())
        self._leave_progress()

    def _leave_progress(self) -> None:
        try:
            status.leave_progress(self._config.state, self.status())
        except (OSError, StateDamaged) as error:
            _log.info("the status on this device may not say how far the download is: %s", error)

    async def _note_progress(self) -> None:
        try:
            await self._updates.progressed()
        except StateDamaged as error:
            _log.error("%s; the download goes on", error)
        self._leave_progress()

    def _waits(self, seconds: float, reason: str) -> None:
        self._aside(self._note_wait(seconds, reason))

    async def _note_wait(self, seconds: float, reason: str) -> None:
        try:
            await self._updates.waits(seconds, reason)
        except StateDamaged as error:
            _log.error("%s; the download waits all the same", error)

    def _aside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)


class DeviceTrust:
    """The trust store, asked as this device."""

    def __init__(self, store: TrustStore, identity: Identity, accepted: Collection[str]) -> None:
        self._store, self._identity, self._accepted = store, identity, accepted

    def held(self) -> Sequence[HeldVersion]:
        """See check_in.Trust."""
        return self._store.held()

    def apply(self, files: Mapping[tuple[Repository, str], bytes], holds: Collection[str], now: datetime) -> Assignment:
        """See check_in.Trust."""
        return self._store.apply(files, self._identity, now, holds, self._accepted)

    def apply_mandate(self, document: bytes, holds: Collection[str], now: datetime) -> Assignment:
        """See mandates.MandateTrust."""
        return self._store.apply_mandate(document, self._identity, now, holds, self._accepted)

    def mandate(self) -> bytes | None:
        """See mandates.MandateTrust."""
        return self._store.mandate()

    def generation(self) -> int:
        """See mandates.MandateTrust."""
        return self._store.marks().generation

    def passed(self) -> datetime:
        """A time that has surely passed. Raises StateDamaged."""
        return self._store.marks().trusted_time

    def activated(self, target: ImageTarget) -> None:
        """See trust_store.TrustStore."""
        self._store.activated(target)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _credentials(identity: Identity) -> Credentials:
    return Credentials(identity.key, identity.certificate_path, identity.ca_path)


def hw_classes(config: AgentConfig) -> frozenset[str]:
    """The kinds of hardware that this device may be given artifacts for."""
    return frozenset(
        hw_class(runtime, accelerator)
        for runtime, engine in config.engines.items()
        if engine.enabled
        for accelerator in engine.accelerators
    )


def _worth_a_check_in(state: Lifecycle) -> tuple[object, ...]:
    """What the controller should know at once. Progress in bytes waits for the regular time."""
    return (state.step, state.outcome, state.fault, state.generation, state.active, state.held, state.refused)
