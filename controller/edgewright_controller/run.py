"""The controller's process: everything opened in order, everything closed in the opposite order.

The order says what depends on what: lock, ledger, authority, repositories, store, broker, rollouts, servers.
Nothing answers before everything behind it is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from edgewright_contract import durable, heap
from edgewright_contract.v1 import agent_pb2_grpc, enrolment_pb2_grpc, operator_pb2_grpc
from edgewright_controller import log, operator_files, ports
from edgewright_controller.broker import Broker, BrokerFailed, BrokerFiles, BrokerMissing, find_mosquitto
from edgewright_controller.compile.builder import Builder
from edgewright_controller.compile.executor import LocalExecutor
from edgewright_controller.compile.sources.sources import Sources
from edgewright_controller.compile.store import ArtifactStore, StoreError
from edgewright_controller.config import DEFAULT_FLEET, Address, BrokerMode, Settings, SettingsError
from edgewright_controller.delivery import cutting
from edgewright_controller.delivery.cutting import CutterMissing
from edgewright_controller.delivery.forms import Forms
from edgewright_controller.delivery.packs import Packs
from edgewright_controller.director import Director
from edgewright_controller.ledger import Ledger, LedgerError, restorations
from edgewright_controller.ledger import fleet as ledger_fleet
from edgewright_controller.pki import Authority
from edgewright_controller.pki_files import AuthorityError
from edgewright_controller.ports import AddressRefused
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.reports import Ingest
from edgewright_controller.service.admission import Admission
from edgewright_controller.service.agent_service import AgentService
from edgewright_controller.service.authorisation import Gate
from edgewright_controller.service.blocks import Blocks
from edgewright_controller.service.builds import Builds
from edgewright_controller.service.check_in import CheckIns
from edgewright_controller.service.collecting import Caches, Collecting
from edgewright_controller.service.cordons import Cordons
from edgewright_controller.service.decommissioning import Decommissioning
from edgewright_controller.service.delivery_terms import DeliveryTerms
from edgewright_controller.service.deltas import Deltas
from edgewright_controller.service.download_slots import DownloadSlots
from edgewright_controller.service.downloads import Downloads
from edgewright_controller.service.enrolment_service import EnrolmentService, Welcome
from edgewright_controller.service.exporting import Exports
from edgewright_controller.service.history import History
from edgewright_controller.service.jobs import Jobs
from edgewright_controller.service.labelling import Labelling
from edgewright_controller.service.mandates import Mandates
from edgewright_controller.service.model_views import Models
from edgewright_controller.service.operator_service import OperatorService
from edgewright_controller.service.operators import Operators
from edgewright_controller.service.overview import Overview
from edgewright_controller.service.pausing import Pausing
from edgewright_controller.service.presence import Presence
from edgewright_controller.service.release_views import Releases
from edgewright_controller.service.renewals import renewals
from edgewright_controller.service.reporting import LedgerReports
from edgewright_controller.service.revocations import Revocations
from edgewright_controller.service.rollout_watches import RolloutWatches
from edgewright_controller.service.rollouts_runner import HintRelay, RolloutsRunner
from edgewright_controller.service.servers import Server, ServerCertificate, open_server
from edgewright_controller.service.shutting_out import ShuttingOut, write_list
from edgewright_controller.service.tokens import Tokens
from edgewright_controller.service.unentered import Unentered
from edgewright_controller.service.upkeep import Upkeep
from edgewright_controller.state_lock import StateInUse, StateLock
from edgewright_controller.unix_time import unix_ms

GRACE_S: Final = 3.0
# Parts are made in few threads: more heaps would only hold more that is free.
_ARENAS: Final = 4
_LOOPBACK: Final = ("localhost", "127.0.0.1")
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound


class StartError(Exception):
    """The controller cannot start; the message says what stands in the way and what to do."""


# What may stand in the way; each message is written for the operator.
_EXPECTED: Final = (
    AddressRefused,
    AuthorityError,
    BrokerFailed,
    BrokerMissing,
    CutterMissing,
    LedgerError,
    PublishError,
    SettingsError,
    StateInUse,
    StoreError,
)


@dataclass(frozen=True)
class Running:
    """A controller that answers. `mqtt` is empty without a broker."""

    fleet: str
    grpc: Address
    enrolment: Address
    mqtt: str
    client_toml: Path


def serve(settings: Settings, style: log.Format = log.Format.HUMAN) -> None:
    """Run until SIGTERM or SIGINT, with a log on standard error. Raises StartError."""
    log.configure(style, sys.stderr)
    heap.set_for_blocks(_ARENAS)
    try:
        asyncio.run(_serve(settings))
    except _EXPECTED as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{error.filename or settings.state}: {error.strerror}") from error


async def _serve(settings: Settings) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    async with AsyncExitStack() as stack:
        running = await start(settings, stack)
        sys.stdout.write(
            f"edgewright: fleet {running.fleet} ready at {running.grpc}, enrolment at {running.enrolment}, "
            f"{f'broker at {running.mqtt}' if running.mqtt else 'no broker'}; "
            f"operators use --config {running.client_toml}\n"
        )
        sys.stdout.flush()
        await end.wait()


async def start(settings: Settings, stack: AsyncExitStack) -> Running:
    """Open everything; closing `stack` closes it. Raises the errors that StartError stands for, and OSError."""
    state, now = settings.state, _clock()
    durable.make_folder(state, mode=0o700)
    stack.callback(StateLock.take(state).release)
    _check_addresses(settings)  # before the folder is bound to a fleet
    ledger = Ledger.open(state / "ledger.sqlite")
    stack.callback(ledger.close)
    fleet = await _fleet(ledger, settings, now)

    authority = Authority.open(state / "pki", fleet, now)
    hosts = _hosts(settings)
    pair = authority.server_certificate(hosts, now)
    image, director = await _repositories(ledger, state, fleet, now)
    store, builder, sources = _compiling(settings)

    revocations = await Revocations.open(ledger, _clock)
    write_list(authority, revocations.current, now)  # before the broker starts, which lets nobody in by an old one
    presence, terms = Presence(), await DeliveryTerms.open(ledger)
    relay = HintRelay()
    runner = RolloutsRunner(ledger, relay.hint, shut=revocations.shut_devices, clock=_clock)
    check_ins = CheckIns(ledger, image, director, presence, runner, clock=_clock)
    files = BrokerFiles(authority.ca_path, pair.chain, pair.key, authority.crl_path)
    managed, broker = await _broker(settings, stack, files)
    _shut_out(ShuttingOut(authority, revocations, managed, _clock), revocations, runner, stack)
    ingest = _ingest(broker, authority, LedgerReports(ledger, check_ins), presence, revocations.shut_devices)
    if ingest is not None:
        ingest.start()
        stack.push_async_callback(ingest.stop)
        relay.to = ingest.hint
    await runner.start()
    stack.push_async_callback(runner.close)
    blocks, deltas, packs = _delivering(ledger, store, state, stack)
    collecting = Collecting(
        fleet,
        ledger,
        store,
        Caches(packs, sources.kept, builder.intermediates),
        quota_bytes=settings.store_quota_bytes,
        clock=_clock,
    )
    jobs = Jobs(
        fleet,
        ledger,
        store=store,
        builder=builder,
        image=image,
        runner=runner,
        sources=sources,
        deltas=deltas,
        terms=terms,
        shut=revocations.shut_devices,
        online=presence.online,
        clock=_clock,
        use=collecting.use,
    )
    stack.push_async_callback(jobs.close)

    people = await Operators.open(ledger, authority, revocations.refresh, _clock)
    gate, certificate = Gate(fleet, revocations, _clock, people.role), ServerCertificate(pair, authority.ca_pem)
    work, grpc = open_server(settings.grpc, "listen.grpc", certificate, gate, clients=True)
    enrol, enrolment = open_server(settings.enrolment, "listen.enrolment", certificate, gate, clients=False)
    tokens, admission = _admitting(settings, ledger, authority, revocations, people, at=enrolment)
    overview = Overview(
        fleet,
        ledger,
        presence,
        runner,
        revocations=revocations,
        broker_connected=lambda: ingest is not None and ingest.connected,
        clock=_clock,
        store_trouble=lambda: collecting.trouble,
    )
    welcome = Welcome(
        fleet=fleet,
        ca_pem=authority.ca_pem,
        image_root=image.first_root,
        director_root=director.first_root,
        controller_address=str(_reached_at(settings, grpc)),
        mqtt_address=broker,
    )
    _add(
        work,
        AgentService(
            gate,
            check_ins,
            _downloads(settings, blocks, terms),
            admission,
            await Unentered.open(ledger, revocations.refresh, _clock),
        ),
        agent_pb2_grpc.add_AgentServicer_to_server,
    )
    watches = RolloutWatches(ledger, runner, _clock)
    operators = OperatorService(
        gate,
        jobs,
        runner,
        overview,
        tokens,
        watches=watches,
        releases=Releases(ledger, store),
        builds=Builds(builder.records),
        models=Models(ledger, store),
        history=History(ledger),
        cordons=Cordons(ledger, runner, _clock),
        pausing=Pausing(ledger, relay.hint, _clock),
        labelling=Labelling(ledger, _clock, terms.refresh),
        decommissioning=Decommissioning(ledger, revocations, runner, _clock),
        revocations=revocations,
        people=people,
        mandates=Mandates(fleet, ledger, image, runner, revocations, clock=_clock),
        collecting=collecting,
        exports=Exports(fleet, ledger, store, _clock),
        ingest=ingest,
    )
    _add(work, operators, operator_pb2_grpc.add_OperatorServicer_to_server)
    _add(
        enrol,
        EnrolmentService(admission.enrol, people.login, welcome),
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server,
    )
    upkeep = Upkeep(
        ledger,
        presence,
        renewals=renewals(
            image=image,
            director=director,
            authority=authority,
            certificate=certificate,
            hosts=hosts,
            broker=managed,
            state=state,
        ),
        keep_reports=timedelta(seconds=settings.reports_kept_s),
        keep_store=collecting.keep_within_quota,
        clock=_clock,
    )
    await _answer(stack, (work, enrol), watches)
    upkeep.start()
    stack.push_async_callback(upkeep.close)
    client_toml = operator_files.write(state / "operator", authority, _reached_at(settings, grpc), now)
    return Running(fleet, grpc, enrolment, broker, client_toml)


def _delivering(
    ledger: Ledger, store: ArtifactStore, state: Path, stack: AsyncExitStack
) -> tuple[Blocks, Deltas, Packs]:
    """What sends artifacts, and what has ready how they differ from what devices hold."""
    packs = Packs(state / "store" / "deltas")
    deltas = Deltas(ledger, store, packs)
    stack.push_async_callback(deltas.close)
    return Blocks(store, packed=Forms(packs), lacking=deltas.lacking, sending=store.sending), deltas, packs


def _compiling(settings: Settings) -> tuple[ArtifactStore, Builder, Sources]:
    """Where builds are kept, what builds, and what it builds from; whatever runs toolchains shares the memory here.
    Raises CutterMissing."""
    cutting.check()  # before anything is built that cannot be kept
    state, interpreters = settings.state, settings.interpreters
    store = ArtifactStore(state / "store")
    executor = LocalExecutor(interpreters, os.cpu_count() or 1, settings.builds.memory_bytes)
    builder = Builder(store, state, interpreters, limits=settings.builds, executor=executor, gated=True, carded=True)
    sources = Sources(
        state / "sources",
        settings.credentials,
        interpreters=interpreters,
        executor=executor,
        toolchains=state / "toolchains",
        hashes=state / "builds" / "hashes.json",
        budget_bytes=settings.sources_kept_bytes,
    )
    return store, builder, sources


def _downloads(settings: Settings, blocks: Blocks, terms: DeliveryTerms) -> Downloads:
    return Downloads(blocks, DownloadSlots(settings.download_streams), terms.of, patience_s=settings.stalled_after_s)


async def _answer(stack: AsyncExitStack, servers: Sequence[Server], watches: RolloutWatches) -> None:
    for server in servers:
        await server.start()
        stack.push_async_callback(server.stop, GRACE_S)
    stack.callback(watches.close)  # first: else a server waits out its grace for each of them


def _shut_out(
    shutting_out: ShuttingOut, revocations: Revocations, runner: RolloutsRunner, stack: AsyncExitStack
) -> None:
    revocations.listen(runner.look_for_shut)
    shutting_out.start()
    stack.push_async_callback(shutting_out.close)


async def _repositories(ledger: Ledger, state: Path, fleet: str, now: datetime) -> tuple[ImageRepository, Director]:
    """Both, and nothing in them that devices who were here before a restore would refuse. Raises PublishError, OSError,
    LedgerError."""
    image = ImageRepository.open(state / "image", state / "keys", now)
    if floor := await ledger.read(restorations.counts_from):
        image.count_from(floor, now)
    return image, Director.open(state / "director", state / "keys", fleet, now)


def _admitting(
    settings: Settings,
    ledger: Ledger,
    authority: Authority,
    revocations: Revocations,
    people: Operators,
    *,
    at: Address,
) -> tuple[Tokens, Admission]:
    """What lets devices in: what administrators give out, and what devices get. `at`: where it listens."""
    address, within = str(_reached_at(settings, at)), timedelta(days=settings.return_within_days)
    admission = Admission(ledger, authority, address, return_within=within, issued=revocations.refresh, clock=_clock)
    people.address = address
    return Tokens(ledger, authority, address, _clock), admission


async def _fleet(ledger: Ledger, settings: Settings, now: datetime) -> str:
    """The fleet's name: of the ledger, else of the settings, from now on. Raises LedgerError for another fleet's."""
    bound = await ledger.read(ledger_fleet.name)
    fleet = settings.fleet or bound or DEFAULT_FLEET
    await ledger.write(lambda c: ledger_fleet.bind(c, fleet, unix_ms(now)))
    return fleet


def _check_addresses(settings: Settings) -> None:
    """Raises AddressRefused, SettingsError."""
    ports.check("listen.grpc", settings.grpc.host, settings.grpc.port)
    ports.check("listen.enrolment", settings.enrolment.host, settings.enrolment.port)
    told = [settings.grpc, settings.enrolment]
    if settings.broker is BrokerMode.MANAGED:
        # Its port may be held by the broker of a controller that was killed, which a start ends first.
        ports.check("listen.mqtt", settings.mqtt.host, 0)
        told.append(settings.mqtt)
    for address in told:
        _reached_at(settings, address)


def _hosts(settings: Settings) -> tuple[str, ...]:
    """Every name that a client may call this host by; they stand in the server's certificate."""
    listened = [one.host for one in (settings.grpc, settings.enrolment, settings.mqtt) if one.host not in _EVERYWHERE]
    return tuple(dict.fromkeys((*_LOOPBACK, *settings.names, *listened)))


def _reached_at(settings: Settings, address: Address) -> Address:
    """The address that devices are told. Raises SettingsError when nothing says it."""
    if settings.names:
        return Address(settings.names[0], address.port)
    if address.host in _EVERYWHERE:
        raise SettingsError(
            f"names: {address} is every address of this host; say what devices call it: "
            '--name edgewright.example, or names = ["edgewright.example"] in the file of --settings'
        )
    return address


async def _broker(settings: Settings, stack: AsyncExitStack, files: BrokerFiles) -> tuple[Broker | None, str]:
    """The managed broker, started, and the broker's address as devices are told it, empty for none."""
    if settings.broker is BrokerMode.OFF:
        return None, ""
    if settings.broker is BrokerMode.EXTERNAL:
        return None, str(settings.broker_address)
    folder = settings.state / "broker"
    broker = Broker(folder, settings.mqtt.host, settings.mqtt.port, files, find_mosquitto(settings.mosquitto))
    await broker.start()
    stack.push_async_callback(broker.stop)
    port = int(broker.address.rpartition(":")[2])
    return broker, str(_reached_at(settings, Address(settings.mqtt.host, port)))


def _ingest(
    broker: str,
    authority: Authority,
    reports: LedgerReports,
    presence: Presence,
    shut: Callable[[], frozenset[str]],
) -> Ingest | None:
    if not broker:
        return None
    client = authority.service_client_certificate(now=_clock())
    return Ingest(broker, BrokerFiles(authority.ca_path, client.chain, client.key), reports, presence, shut=shut)


def _add(server: Server, service: object, register: Any) -> None:
    register(service, server)  # generated code has no types


def _clock() -> datetime:
    return datetime.now(timezone.utc)
