"""What operators call. Translate, call, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from grpc import StatusCode

from edgewright_contract import __version__
from edgewright_contract.v1 import operator_pb2, operator_pb2_grpc
from edgewright_controller import log
from edgewright_controller.enrolment import EnrolmentRefused
from edgewright_controller.ledger import LedgerError, NotInLedger
from edgewright_controller.ledger.audit import Wanted
from edgewright_controller.ledger.certificates import DEVICE, OPERATOR
from edgewright_controller.pki import CsrRefused
from edgewright_controller.rollout import (
    Aborted,
    Approved,
    Command,
    Paused,
    Resumed,
    Retried,
    RolloutError,
    Skipped,
)
from edgewright_controller.service.applying import Order
from edgewright_controller.service.authorisation import Context, Gate, refuse
from edgewright_controller.service.builds import Builds
from edgewright_controller.service.change import BadInput, ChangeRefused, ManifestText, Selection
from edgewright_controller.service.operators import OperatorRefused
from edgewright_controller.service.revocations import NothingToRevoke
from edgewright_controller.service.ways_back import Asked
from edgewright_controller.unix_time import unix_ms

if TYPE_CHECKING:
    from edgewright_controller.peers import Peer
    from edgewright_controller.reports import Ingest
    from edgewright_controller.service.collecting import Collecting
    from edgewright_controller.service.cordons import Cordons
    from edgewright_controller.service.decommissioning import Decommissioning
    from edgewright_controller.service.exporting import Exports
    from edgewright_controller.service.history import History
    from edgewright_controller.service.job import Job
    from edgewright_controller.service.jobs import Jobs
    from edgewright_controller.service.labelling import Labelling
    from edgewright_controller.service.mandates import Mandates
    from edgewright_controller.service.model_views import Models
    from edgewright_controller.service.operators import Operators
    from edgewright_controller.service.overview import Overview
    from edgewright_controller.service.pausing import Pausing
    from edgewright_controller.service.release_views import Releases
    from edgewright_controller.service.revocations import Revocations
    from edgewright_controller.service.rollout_watches import RolloutWatches
    from edgewright_controller.service.rollouts_runner import RolloutsRunner
    from edgewright_controller.service.tokens import Tokens

_log = log.of(__name__)
# gRPC sends an error's text in a trailer, which is bounded.
MAX_MESSAGE_CHARACTERS: Final = 8_000
MAX_REASON_CHARACTERS: Final = 500
MAX_ROLLOUTS: Final = 100
MAX_COLLECTABLE: Final = 5_000


class OperatorService(operator_pb2_grpc.OperatorServicer):
    """The service `Operator`; the gate has admitted the caller."""

    def __init__(
        self,
        gate: Gate,
        jobs: Jobs,
        runner: RolloutsRunner,
        overview: Overview,
        tokens: Tokens,
        *,
        watches: RolloutWatches,
        releases: Releases,
        models: Models,
        builds: Builds,
        history: History,
        cordons: Cordons,
        pausing: Pausing,
        labelling: Labelling,
        decommissioning: Decommissioning,
        revocations: Revocations,
        people: Operators,
        mandates: Mandates,
        collecting: Collecting,
        exports: Exports,
        ingest: Ingest | None,
    ) -> None:
        self._gate, self._jobs, self._runner, self._overview = gate, jobs, runner, overview
        self._watches, self._people = watches, people
        self._releases, self._models, self._history = releases, models, history
        self._builds, self._collecting, self._pausing = builds, collecting, pausing
        self._exports = exports
        self._cordons, self._labelling, self._decommissioning = cordons, labelling, decommissioning
        self._tokens, self._revocations, self._mandates, self._ingest = tokens, revocations, mandates, ingest

    async def Plan(self, request: operator_pb2.PlanRequest, context: Context) -> operator_pb2.PlanResponse:
        """What an apply would do."""
        try:
            return await self._jobs.plan(ManifestText(request.manifest, request.file, request.folder), _only(request))
        except (BadInput, ChangeRefused, LedgerError) as error:
            return await _refuse(context, error)

    async def Apply(
        self, request: operator_pb2.ApplyRequest, context: Context
    ) -> AsyncIterator[operator_pb2.ApplyEvent]:
        """Start a change and follow it. It goes on when the caller leaves."""
        try:
            order = Order(
                ManifestText(request.manifest, request.file, request.folder),
                by=self._operator(context),
                only=_only(request),
                again=request.again,
                build_only=request.build_only,
                supersede=request.supersede,
                why=_reason(request.reason),
            )
            job = await self._jobs.apply(order)
        except (BadInput, ChangeRefused, LedgerError) as error:
            await _refuse(context, error)
        async for event in job.follow():
            yield event

    async def Rollback(
        self, request: operator_pb2.RollbackRequest, context: Context
    ) -> AsyncIterator[operator_pb2.ApplyEvent]:
        """Start a return to the releases before, and follow it."""
        try:
            asked = Asked(request.release, tuple(request.devices), tuple(request.groups), request.generation)
            why = _reason(request.reason)
            job: Job = await self._jobs.rollback(asked, by=self._operator(context), why=why)
        except (BadInput, ChangeRefused, LedgerError) as error:
            await _refuse(context, error)
        async for event in job.follow():
            yield event

    async def ControlRollout(
        self, request: operator_pb2.ControlRolloutRequest, context: Context
    ) -> operator_pb2.ControlRolloutResponse:
        """What an operator says to a rollout."""
        try:
            command = _command(request, self._operator(context))
            answer = await self._runner.control(request.rollout, command)
        except NotInLedger as error:
            return await _refuse(context, BadInput(str(error)))
        except (BadInput, RolloutError, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.ControlRolloutResponse(
            state=answer.phase.value, rollout=answer.rollout, devices=answer.devices
        )

    async def ListRollouts(
        self, request: operator_pb2.ListRolloutsRequest, context: Context
    ) -> operator_pb2.ListRolloutsResponse:
        """Rollouts, also those that ended."""
        limit = min(request.limit or MAX_ROLLOUTS, MAX_ROLLOUTS)
        try:
            return operator_pb2.ListRolloutsResponse(rollouts=await self._runner.listed(limit))
        except LedgerError as error:
            return await _refuse(context, error)

    async def ShowRollout(
        self, request: operator_pb2.ShowRolloutRequest, context: Context
    ) -> operator_pb2.ShowRolloutResponse:
        """One rollout with its waves, devices and history."""
        try:
            return await self._watches.show(request.rollout)
        except NotInLedger as error:
            return await _refuse(context, BadInput(str(error)))
        except LedgerError as error:
            return await _refuse(context, error)

    async def WatchRollout(
        self, request: operator_pb2.WatchRolloutRequest, context: Context
    ) -> AsyncIterator[operator_pb2.ApplyEvent]:
        """One rollout, until it ends."""
        try:
            async for event in self._watches.watch(request.rollout):
                yield event
        except NotInLedger as error:
            await _refuse(context, BadInput(str(error)))
        except (RolloutError, LedgerError) as error:
            await _refuse(context, error)

    async def Status(self, request: operator_pb2.StatusRequest, context: Context) -> operator_pb2.StatusResponse:
        """What is known of the fleet."""
        try:
            return await self._overview.status(
                list(request.devices), request.limit, decommissioned=request.decommissioned
            )
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)

    async def ShowDevice(
        self, request: operator_pb2.ShowDeviceRequest, context: Context
    ) -> operator_pb2.ShowDeviceResponse:
        """One device and its past."""
        try:
            return await self._overview.device(request.device)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)

    async def ListReleases(
        self, request: operator_pb2.ListReleasesRequest, context: Context
    ) -> operator_pb2.ListReleasesResponse:
        """Releases, also those that nobody has any more."""
        try:
            return await self._releases.listed(request.model, request.limit)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)

    async def ShowRelease(self, request: operator_pb2.ShowReleaseRequest, context: Context) -> operator_pb2.ReleaseView:
        """One release, whole."""
        try:
            return await self._releases.shown(request.release)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)

    async def ListModels(
        self, request: operator_pb2.ListModelsRequest, context: Context
    ) -> operator_pb2.ListModelsResponse:
        """Models that were built."""
        try:
            return await self._models.listed()
        except LedgerError as error:
            return await _refuse(context, error)

    async def ShowModel(
        self, request: operator_pb2.ShowModelRequest, context: Context
    ) -> operator_pb2.ShowModelResponse:
        """One model's builds."""
        try:
            return await self._models.shown(request.model)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)

    async def FetchProvenance(
        self, request: operator_pb2.FetchProvenanceRequest, context: Context
    ) -> operator_pb2.FetchProvenanceResponse:
        """How one artifact was made."""
        try:
            return await self._models.provenance(request.artifact)
        except (BadInput, ChangeRefused, LedgerError) as error:
            return await _refuse(context, error)

    async def ListBuilds(
        self, request: operator_pb2.ListBuildsRequest, _context: Context
    ) -> operator_pb2.ListBuildsResponse:
        """What became of builds."""
        return self._builds.listed(request.limit)

    async def BuildLog(self, request: operator_pb2.BuildLogRequest, context: Context) -> operator_pb2.BuildLogResponse:
        """The end of a build's log."""
        try:
            return await self._builds.log(request.build_key, request.lines)
        except BadInput as error:
            return await _refuse(context, error)

    async def History(self, request: operator_pb2.HistoryRequest, context: Context) -> operator_pb2.HistoryResponse:
        """Who changed what, and why."""
        try:
            return await self._history.entries(request.device, request.since_unix_ms, request.limit)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)

    async def LabelDevices(
        self, request: operator_pb2.LabelDevicesRequest, context: Context
    ) -> operator_pb2.LabelDevicesResponse:
        """Labels given and taken away."""
        by, given, gone = self._operator(context), dict(request.set), list(request.remove)
        try:
            await self._labelling.label(list(request.devices), given, gone, by=by)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.LabelDevicesResponse()

    async def CordonDevices(
        self, request: operator_pb2.CordonDevicesRequest, context: Context
    ) -> operator_pb2.CordonDevicesResponse:
        """Devices left as they are, or no longer."""
        act = self._cordons.cordon if request.cordoned else self._cordons.uncordon
        try:
            reason = _reason(request.reason)
            changed = await act(list(request.devices), by=self._operator(context), reason=reason)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.CordonDevicesResponse(changed=changed)

    async def PauseDownloads(
        self, request: operator_pb2.PauseDownloadsRequest, context: Context
    ) -> operator_pb2.PauseDownloadsResponse:
        """Devices that fetch nothing, or again."""
        act = self._pausing.pause if request.paused else self._pausing.resume
        try:
            reason = _reason(request.reason)
            changed = await act(list(request.devices), by=self._operator(context), reason=reason)
        except (BadInput, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.PauseDownloadsResponse(changed=changed)

    async def DecommissionDevice(
        self, request: operator_pb2.DecommissionDeviceRequest, context: Context
    ) -> operator_pb2.DecommissionDeviceResponse:
        """A device out of the fleet, for good."""
        by = self._operator(context)
        try:
            reason = _reason(request.reason)
            count = await self._decommissioning.decommission(request.device, by=by, reason=reason)
        except (BadInput, ChangeRefused, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.DecommissionDeviceResponse(certificates=count)

    async def Tail(self, request: operator_pb2.TailRequest, context: Context) -> AsyncIterator[operator_pb2.TailEvent]:
        """Reports as they come in."""
        if self._ingest is None:
            await _refuse(context, ChangeRefused("this controller runs without a broker, so no reports come in"))
        try:
            await self._overview.check_enrolled(list(request.devices))
        except (BadInput, LedgerError) as error:
            await _refuse(context, error)
        async for _, envelope, received_ms in self._ingest.tail(request.devices):
            yield operator_pb2.TailEvent(envelope=envelope, received_unix_ms=received_ms)

    async def CreateEnrolment(
        self, request: operator_pb2.CreateEnrolmentRequest, context: Context
    ) -> operator_pb2.CreateEnrolmentResponse:
        """A token for one device."""
        try:
            made = await self._tokens.create(request.device, request.valid_s, self._operator(context))
        except (EnrolmentRefused, LedgerError) as error:
            return await _refuse(context, error)
        _log.info("enrolment token made", operator=self._operator(context), device=request.device)
        return operator_pb2.CreateEnrolmentResponse(
            token=made.token, expires_unix_ms=made.expires_ms, enrolled_unix_ms=made.enrolled_ms
        )

    async def AuthoriseKey(
        self, request: operator_pb2.AuthoriseKeyRequest, context: Context
    ) -> operator_pb2.AuthoriseKeyResponse:
        """A device's key may enrol once."""
        operator = self._operator(context)
        try:
            made = await self._tokens.authorise(request.device, request.public_key_pem, operator)
        except (EnrolmentRefused, LedgerError) as error:
            return await _refuse(context, error)
        _log.info("key authorised", operator=operator, device=request.device, key=made.key_sha256)
        return operator_pb2.AuthoriseKeyResponse(
            token=made.token, key_sha256=made.key_sha256, enrolled_unix_ms=made.enrolled_ms
        )

    async def Revoke(self, request: operator_pb2.RevokeRequest, context: Context) -> operator_pb2.RevokeResponse:
        """An end to all certificates of one holder."""
        by = self._operator(context)
        try:
            kind, holder = _holder(request, by)
            count = await self._revocations.revoke(kind, holder, by=f"operator {by}", why=request.reason)
        except (BadInput, NothingToRevoke, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.RevokeResponse(certificates=count)

    async def CreateMandate(
        self, request: operator_pb2.CreateMandateRequest, context: Context
    ) -> operator_pb2.CreateMandateResponse:
        """An offline mandate, for its signers."""
        try:
            document, row = await self._mandates.create(
                request.device, request.profile, request.release, request.valid_s, by=self._operator(context)
            )
        except (BadInput, ChangeRefused, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.CreateMandateResponse(
            document=document,
            number=row.number,
            generation=row.generation,
            release=row.release,
            expires_unix_ms=row.expires_ms,
        )

    async def ExportRelease(
        self, request: operator_pb2.ExportReleaseRequest, context: Context
    ) -> AsyncIterator[operator_pb2.ExportPart]:
        """What a device without a network needs of one release."""
        try:
            async for part in self._exports.export(request.release, request.since, by=self._operator(context)):
                yield part
        except (BadInput, ChangeRefused, LedgerError) as error:
            await _refuse(context, error)

    async def CollectGarbage(
        self, request: operator_pb2.CollectGarbageRequest, context: Context
    ) -> operator_pb2.CollectGarbageResponse:
        """What nobody needs any more, shown or removed."""
        try:
            if request.remove:
                found = await self._collecting.collect(request.unused_s, by=self._operator(context))
            else:
                found = await self._collecting.look(request.unused_s)
        except (ChangeRefused, LedgerError) as error:
            return await _refuse(context, error)
        except OSError as error:
            return await _refuse(context, ChangeRefused(f"{error.filename or 'the store'}: {error.strerror}"))
        return operator_pb2.CollectGarbageResponse(
            going=[
                operator_pb2.Collectable(
                    kind=one.thing.kind.value,
                    name=one.thing.name,
                    bytes=one.thing.size,
                    used_unix_ms=one.thing.used_ms,
                    what=one.thing.what,
                    why=one.why,
                )
                for one in found.going[:MAX_COLLECTABLE]
            ],
            count=len(found.going),
            bytes=found.size,
            store_bytes=found.left_bytes if request.remove else found.store_bytes,
            removed=request.remove,
        )

    async def Whoami(self, request: operator_pb2.WhoamiRequest, context: Context) -> operator_pb2.WhoamiResponse:
        """Who calls, and what counts."""
        caller = self._caller(context)
        return operator_pb2.WhoamiResponse(
            name=caller.id,
            role=caller.role,
            fleet=self._overview.fleet,
            certificate_ends_unix_ms=unix_ms(caller.not_after),
            controller_version=__version__,
        )

    async def AddOperator(
        self, request: operator_pb2.AddOperatorRequest, context: Context
    ) -> operator_pb2.AddOperatorResponse:
        """A login token."""
        try:
            by = self._operator(context)
            token, ends_ms = await self._people.add(request.name, request.role, request.valid_s, by)
        except (OperatorRefused, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.AddOperatorResponse(token=token, expires_unix_ms=ends_ms)

    async def ListOperators(
        self, request: operator_pb2.ListOperatorsRequest, context: Context
    ) -> operator_pb2.ListOperatorsResponse:
        """Who has a role."""
        try:
            listed = await self._people.listed()
        except LedgerError as error:
            return await _refuse(context, error)
        views = [
            operator_pb2.OperatorView(
                name=row.name,
                role=row.role,
                by=row.by,
                added_unix_ms=row.added_ms,
                certificate_ends_unix_ms=ends_ms,
            )
            for row, ends_ms in listed
        ]
        return operator_pb2.ListOperatorsResponse(operators=views)

    async def SetOperatorRole(
        self, request: operator_pb2.SetOperatorRoleRequest, context: Context
    ) -> operator_pb2.SetOperatorRoleResponse:
        """Another role, from the next call on."""
        try:
            await self._people.set_role(request.name, request.role, self._operator(context))
        except (OperatorRefused, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.SetOperatorRoleResponse()

    async def RemoveOperator(
        self, request: operator_pb2.RemoveOperatorRequest, context: Context
    ) -> operator_pb2.RemoveOperatorResponse:
        """An end to an operator."""
        try:
            count = await self._people.remove(request.name, self._operator(context))
        except (OperatorRefused, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.RemoveOperatorResponse(certificates=count)

    async def RenewOperator(
        self, request: operator_pb2.RenewOperatorRequest, context: Context
    ) -> operator_pb2.RenewOperatorResponse:
        """Another certificate for the caller."""
        try:
            chain = await self._people.renew(self._caller(context), request.csr_der)
        except (OperatorRefused, CsrRefused, LedgerError) as error:
            return await _refuse(context, error)
        return operator_pb2.RenewOperatorResponse(certificate_chain_pem=chain)

    async def Audit(
        self, request: operator_pb2.AuditRequest, context: Context
    ) -> AsyncIterator[operator_pb2.AuditEntry]:
        """Who did what."""
        wanted = Wanted(request.subject, request.actor, request.since_unix_ms, request.last)
        try:
            async for row in self._overview.audit(wanted):
                yield operator_pb2.AuditEntry(
                    number=row.number,
                    at_unix_ms=row.at_ms,
                    actor=row.actor,
                    action=row.action,
                    subject=row.subject,
                    release=row.release,
                    detail=row.detail,
                    previous=row.previous,
                    hash=row.hash,
                )
        except LedgerError as error:
            await _refuse(context, error)

    def _caller(self, context: Context) -> Peer:
        caller = self._gate.peer(context)
        assert caller is not None  # the gate lets nobody in without a certificate
        return caller

    def _operator(self, context: Context) -> str:
        caller = self._gate.peer(context)
        return caller.id if caller else ""


def _only(request: operator_pb2.PlanRequest | operator_pb2.ApplyRequest) -> Selection:
    return Selection(tuple(request.devices), tuple(request.groups))


def _reason(given: str) -> str:
    """An operator's reason. Raises BadInput."""
    if len(given) > MAX_REASON_CHARACTERS:
        raise BadInput(f"reason: {len(given)} characters; give at most {MAX_REASON_CHARACTERS}")
    return given


def _holder(request: operator_pb2.RevokeRequest, by: str) -> tuple[str, str]:
    """The kind and name of whom is meant. Raises BadInput."""
    _reason(request.reason)
    kinds = operator_pb2.RevokeRequest
    if request.kind == kinds.KIND_DEVICE:
        return DEVICE, request.holder
    if request.kind != kinds.KIND_OPERATOR:
        raise BadInput(f"kind: {request.kind} is none that this controller knows")
    if request.holder == by:
        raise BadInput(f"operator {by} is you; let another administrator do that")
    return OPERATOR, request.holder


def _command(request: operator_pb2.ControlRolloutRequest, operator: str) -> Command:
    """What is meant. Raises BadInput."""
    by = f"{operator}: {reason}" if (reason := _reason(request.reason)) else operator
    actions, devices = operator_pb2.ControlRolloutRequest, frozenset(request.devices)
    if devices and request.action not in (actions.ACTION_RETRY, actions.ACTION_SKIP):
        raise BadInput("devices: only a retry and a skip are for some of a rollout's devices; name none")
    if request.action == actions.ACTION_SKIP and not devices:
        raise BadInput("devices: none is named; name those that are to be skipped")
    if request.action == actions.ACTION_RETRY:
        return Retried(devices or None, by)
    if request.action == actions.ACTION_SKIP:
        return Skipped(devices, by)
    if request.action in (actions.ACTION_ABORT_KEEP, actions.ACTION_ABORT_REVERT):
        return Aborted(revert=request.action == actions.ACTION_ABORT_REVERT, by=by)
    if request.action not in _WHOLE:
        raise BadInput(f"action: {request.action} is none that this controller knows")
    return _WHOLE[request.action](by)


_WHOLE: Final[Mapping[int, Callable[[str], Command]]] = {
    operator_pb2.ControlRolloutRequest.ACTION_PAUSE: Paused,
    operator_pb2.ControlRolloutRequest.ACTION_RESUME: Resumed,
    operator_pb2.ControlRolloutRequest.ACTION_APPROVE: Approved,
}


async def _refuse(context: Context, error: Exception) -> NoReturn:
    bad_input = isinstance(error, BadInput | EnrolmentRefused | OperatorRefused | CsrRefused)
    code = StatusCode.INVALID_ARGUMENT if bad_input else StatusCode.FAILED_PRECONDITION
    await refuse(context, code, str(error)[:MAX_MESSAGE_CHARACTERS])
