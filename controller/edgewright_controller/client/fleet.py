"""All that an operator can ask of a controller, one method each. Every method raises ClientError."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from edgewright_contract.v1 import operator_pb2
from edgewright_controller import access_place
from edgewright_controller.client.access import Access, read_access
from edgewright_controller.client.connection import PING_EVERY_MS, Connection

_Action = operator_pb2.ControlRolloutRequest


class Fleet:
    """A connection to one controller, as an operator. Use as a context manager, or `close` it.

    A `reason` is kept with what was done, at most 500 characters; empty: none is given. An empty list of devices means
    all, unless a method says otherwise. A release is a digest, or as much of its beginning as only one has.
    """

    def __init__(self, access: Access, *, ping_every_ms: int = PING_EVERY_MS, patience_s: float | None = None) -> None:
        """Reads the three files that `access` names; connects at the first call. Raises AccessError.

        `ping_every_ms`: how soon a dead line under a quiet stream is noticed; a controller allows one in 10 s.
        `patience_s`: seconds for the connection, and for each answer; None: 10 and 60.
        """
        self._line = Connection(access, ping_every_ms=ping_every_ms, patience_s=patience_s)

    @classmethod
    def connect(cls, config: Path | str | None = None, controller: str | None = None) -> Fleet:
        """The fleet that the commands speak to. Connects at the first call. Raises AccessError.

        `config`: the TOML file with address, certificate, key and ca; None: the one that EDGEWRIGHT_CONFIG names, else
        the one in the platform's usual place, which `edgewright status --help` shows. `controller`: host:port, instead
        of the file's address; None: what EDGEWRIGHT_CONTROLLER says, if anything.
        """
        named = config or os.environ.get(access_place.CONFIG) or access_place.default_config()
        return cls(read_access(Path(named), controller or os.environ.get(access_place.CONTROLLER)))

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection; streams end."""
        self._line.close()

    # ── Changes ──

    def plan(
        self, manifest: str, file: str, folder: str, *, devices: Sequence[str] = (), groups: Sequence[str] = ()
    ) -> operator_pb2.PlanResponse:
        """What `apply` would do. The arguments are those of `apply`."""
        request = operator_pb2.PlanRequest(manifest=manifest, file=file, folder=folder, devices=devices, groups=groups)
        # Reading a large checkpoint takes its time, once. A line that is dead is found by pings.
        return self._line.once("Plan", request, operator_pb2.PlanResponse, patient=True)

    def apply(
        self,
        manifest: str,
        file: str,
        folder: str,
        *,
        again: bool = False,
        build_only: bool = False,
        devices: Sequence[str] = (),
        groups: Sequence[str] = (),
        reason: str = "",
        supersede: bool = False,
    ) -> Iterator[operator_pb2.ApplyEvent]:
        """Start the change at once, and follow it; the last event holds a result. It goes on when the caller leaves.

        `manifest` is TOML, `file` its name for messages, `folder` an absolute path: relative sources start there, on
        the controller's host. `devices` and `groups`: only those of either; both empty: all of the manifest. `again`:
        release what was rolled back before. `build_only`: change no device. `supersede`: take devices over from
        rollouts that go on with others.
        """
        request = operator_pb2.ApplyRequest(
            manifest=manifest,
            file=file,
            folder=folder,
            again=again,
            build_only=build_only,
            devices=devices,
            groups=groups,
            reason=reason,
            supersede=supersede,
        )
        return self._line.many("Apply", request, operator_pb2.ApplyEvent)

    def rollback(
        self,
        release: str = "",
        devices: Sequence[str] = (),
        *,
        groups: Sequence[str] = (),
        generation: int = 0,
        reason: str = "",
    ) -> Iterator[operator_pb2.ApplyEvent]:
        """Return devices to the release before, at once, and follow it; the last event holds a result.

        `release` is the one to leave; empty: the change that runs, else the newest in use. `generation`, of one device:
        back to what it had by that one; 0: the release before.
        """
        request = operator_pb2.RollbackRequest(
            release=release, devices=devices, groups=groups, generation=generation, reason=reason
        )
        return self._line.many("Rollback", request, operator_pb2.ApplyEvent)

    def releases(self, limit: int = 0, model: str = "") -> operator_pb2.ListReleasesResponse:
        """Releases, the newest first; `limit` 0: at most 100. `model` empty: of all."""
        request = operator_pb2.ListReleasesRequest(limit=limit, model=model)
        return self._line.once("ListReleases", request, operator_pb2.ListReleasesResponse)

    def release(self, release: str) -> operator_pb2.ReleaseView:
        """One release, with its document."""
        request = operator_pb2.ShowReleaseRequest(release=release)
        return self._line.once("ShowRelease", request, operator_pb2.ReleaseView)

    def builds(self, limit: int = 0) -> operator_pb2.ListBuildsResponse:
        """What became of builds, the newest first; `limit` 0: at most 20."""
        request = operator_pb2.ListBuildsRequest(limit=limit)
        return self._line.once("ListBuilds", request, operator_pb2.ListBuildsResponse)

    def build_log(self, build: str, lines: int = 0) -> operator_pb2.BuildLogResponse:
        """The last lines of a build's log; `lines` 0: 100. `build`: its key, or as much of the beginning as only one
        has."""
        request = operator_pb2.BuildLogRequest(build_key=build, lines=lines)
        return self._line.once("BuildLog", request, operator_pb2.BuildLogResponse)

    def models(self) -> operator_pb2.ListModelsResponse:
        """The models of which there are builds."""
        return self._line.once("ListModels", operator_pb2.ListModelsRequest(), operator_pb2.ListModelsResponse)

    def model(self, model: str) -> operator_pb2.ShowModelResponse:
        """Every build of one model with its report card (JSON), also those that were refused."""
        request = operator_pb2.ShowModelRequest(model=model)
        return self._line.once("ShowModel", request, operator_pb2.ShowModelResponse)

    def provenance(self, artifact: str) -> operator_pb2.FetchProvenanceResponse:
        """How an artifact was made, as an in-toto statement. `artifact`: its digest or that of a release, or as much
        of the beginning as only one has."""
        request = operator_pb2.FetchProvenanceRequest(artifact=artifact)
        return self._line.once("FetchProvenance", request, operator_pb2.FetchProvenanceResponse)

    def history(self, limit: int = 0, device: str = "", since_ms: int = 0) -> operator_pb2.HistoryResponse:
        """What was changed, by whom and why, the newest first; `limit` 0: at most 100. `device` empty: everything."""
        request = operator_pb2.HistoryRequest(limit=limit, device=device, since_unix_ms=since_ms)
        return self._line.once("History", request, operator_pb2.HistoryResponse)

    # ── Rollouts ──

    def rollouts(self, limit: int = 0) -> operator_pb2.ListRolloutsResponse:
        """Rollouts, the newest first, also those that ended; `limit` 0: as many as the controller gives."""
        request = operator_pb2.ListRolloutsRequest(limit=limit)
        return self._line.once("ListRollouts", request, operator_pb2.ListRolloutsResponse)

    def rollout(self, rollout: str = "") -> operator_pb2.ShowRolloutResponse:
        """One rollout with its waves, devices, policy and history; empty: the newest."""
        request = operator_pb2.ShowRolloutRequest(rollout=rollout)
        return self._line.once("ShowRollout", request, operator_pb2.ShowRolloutResponse)

    def watch(self, rollout: str = "") -> Iterator[operator_pb2.ApplyEvent]:
        """How a rollout stands, then each change, until it has ended; the last event holds a result.

        Empty: the one that runs, else the newest.
        """
        return self._line.many(
            "WatchRollout", operator_pb2.WatchRolloutRequest(rollout=rollout), operator_pb2.ApplyEvent
        )

    def pause(self, rollout: str, reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """Offer the release to no further device until `resume`. What was offered goes on."""
        return self._control(rollout, _Action.ACTION_PAUSE, reason)

    def resume(self, rollout: str, reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """Go on after `pause`, or after a wave that was to pause."""
        return self._control(rollout, _Action.ACTION_RESUME, reason)

    def approve(self, rollout: str, reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """Let the next wave begin, after one that asks for approval."""
        return self._control(rollout, _Action.ACTION_APPROVE, reason)

    def retry(self, rollout: str, devices: Sequence[str] = (), reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """Offer the release again to those that failed, or to some of them. What has ended is tried in a new rollout,
        which the answer names."""
        return self._control(rollout, _Action.ACTION_RETRY, reason, devices)

    def skip(self, rollout: str, devices: Sequence[str], reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """Leave these devices out of the rollout; one that is under way returns to what it had."""
        return self._control(rollout, _Action.ACTION_SKIP, reason, devices)

    def abort(self, rollout: str, *, revert: bool = False, reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """End it. Devices under way return to what they had; with `revert` those that have the release do, too."""
        return self._control(rollout, _Action.ACTION_ABORT_REVERT if revert else _Action.ACTION_ABORT_KEEP, reason)

    def _control(
        self, rollout: str, action: operator_pb2.ControlRolloutRequest.Action, reason: str, devices: Sequence[str] = ()
    ) -> operator_pb2.ControlRolloutResponse:
        request = _Action(rollout=rollout, action=action, reason=reason, devices=devices)
        return self._line.once("ControlRollout", request, operator_pb2.ControlRolloutResponse)

    # ── Devices ──

    def status(
        self, devices: Sequence[str] = (), limit: int = 0, *, decommissioned: bool = False
    ) -> operator_pb2.StatusResponse:
        """What the controller knows of the fleet; `limit` 0: of every device. Devices that were decommissioned are
        left out, unless `decommissioned`, or when they are named."""
        request = operator_pb2.StatusRequest(devices=devices, limit=limit, decommissioned=decommissioned)
        return self._line.once("Status", request, operator_pb2.StatusResponse)

    def device(self, device: str) -> operator_pb2.ShowDeviceResponse:
        """One device, with all that it was to have and the rollouts that have had it."""
        request = operator_pb2.ShowDeviceRequest(device=device)
        return self._line.once("ShowDevice", request, operator_pb2.ShowDeviceResponse)

    def label(
        self, devices: Sequence[str], labels: Mapping[str, str] | None = None, *, remove: Sequence[str] = ()
    ) -> None:
        """Give these devices `labels`, and take those named in `remove`. The manifest's own labels win over them."""
        request = operator_pb2.LabelDevicesRequest(devices=devices, set=labels, remove=remove)
        self._line.once("LabelDevices", request, operator_pb2.LabelDevicesResponse)

    def cordon(self, devices: Sequence[str], reason: str = "") -> operator_pb2.CordonDevicesResponse:
        """Leave these devices as they are until `uncordon`: no rollout and no rollback of the fleet reaches them."""
        request = operator_pb2.CordonDevicesRequest(devices=devices, cordoned=True, reason=reason)
        return self._line.once("CordonDevices", request, operator_pb2.CordonDevicesResponse)

    def uncordon(self, devices: Sequence[str], reason: str = "") -> operator_pb2.CordonDevicesResponse:
        """Let changes reach these devices again."""
        request = operator_pb2.CordonDevicesRequest(devices=devices, cordoned=False, reason=reason)
        return self._line.once("CordonDevices", request, operator_pb2.CordonDevicesResponse)

    def pause_downloads(self, devices: Sequence[str], reason: str = "") -> operator_pb2.PauseDownloadsResponse:
        """Have these devices fetch nothing until `resume_downloads`; deadlines of rollouts go on."""
        request = operator_pb2.PauseDownloadsRequest(devices=devices, paused=True, reason=reason)
        return self._line.once("PauseDownloads", request, operator_pb2.PauseDownloadsResponse)

    def resume_downloads(self, devices: Sequence[str], reason: str = "") -> operator_pb2.PauseDownloadsResponse:
        """Let these devices fetch again."""
        request = operator_pb2.PauseDownloadsRequest(devices=devices, paused=False, reason=reason)
        return self._line.once("PauseDownloads", request, operator_pb2.PauseDownloadsResponse)

    def decommission(self, device: str, reason: str = "") -> operator_pb2.DecommissionDeviceResponse:
        """Take a device out of the fleet for good: its certificates are revoked, and no rollout waits for it."""
        request = operator_pb2.DecommissionDeviceRequest(device=device, reason=reason)
        return self._line.once("DecommissionDevice", request, operator_pb2.DecommissionDeviceResponse)

    def tail(self, devices: Sequence[str] = ()) -> Iterator[operator_pb2.TailEvent]:
        """What devices report, as it comes in, until the caller stops."""
        return self._line.many("Tail", operator_pb2.TailRequest(devices=devices), operator_pb2.TailEvent)

    # ── Who may take part ──

    def create_enrolment(self, device: str, valid_s: int = 0) -> operator_pb2.CreateEnrolmentResponse:
        """A token with which `device` can enrol once; `valid_s` 0 means 24 hours."""
        request = operator_pb2.CreateEnrolmentRequest(device=device, valid_s=valid_s)
        return self._line.once("CreateEnrolment", request, operator_pb2.CreateEnrolmentResponse)

    def authorise_key(self, device: str, public_key_pem: str) -> operator_pb2.AuthoriseKeyResponse:
        """Let the holder of this key enrol as `device`, once."""
        request = operator_pb2.AuthoriseKeyRequest(device=device, public_key_pem=public_key_pem)
        return self._line.once("AuthoriseKey", request, operator_pb2.AuthoriseKeyResponse)

    def revoke(
        self, kind: operator_pb2.RevokeRequest.Kind, holder: str, reason: str = ""
    ) -> operator_pb2.RevokeResponse:
        """End all certificates of a device or an operator."""
        request = operator_pb2.RevokeRequest(kind=kind, holder=holder, reason=reason)
        return self._line.once("Revoke", request, operator_pb2.RevokeResponse)

    def create_mandate(
        self, device: str = "", profile: str = "", release: str = "", valid_s: int = 0
    ) -> operator_pb2.CreateMandateResponse:
        """An offline mandate for a device or a profile, that nobody has signed yet."""
        request = operator_pb2.CreateMandateRequest(device=device, profile=profile, release=release, valid_s=valid_s)
        return self._line.once("CreateMandate", request, operator_pb2.CreateMandateResponse)

    def export_release(self, release: str, since: str = "") -> Iterator[operator_pb2.ExportPart]:
        """One release's artifact, in parts: a head, then bytes, as `carrying.write` takes them. `since`: without what
        is in that release's artifact."""
        request = operator_pb2.ExportReleaseRequest(release=release, since=since)
        return self._line.many("ExportRelease", request, operator_pb2.ExportPart)

    def collect_garbage(self, unused_s: int, *, remove: bool = False) -> operator_pb2.CollectGarbageResponse:
        """What nobody needs on the controller's disk and nobody used for `unused_s` seconds; `remove`: remove it."""
        request = operator_pb2.CollectGarbageRequest(unused_s=unused_s, remove=remove)
        return self._line.once("CollectGarbage", request, operator_pb2.CollectGarbageResponse, patient=True)

    def whoami(self) -> operator_pb2.WhoamiResponse:
        """Who this certificate is to the controller."""
        return self._line.once("Whoami", operator_pb2.WhoamiRequest(), operator_pb2.WhoamiResponse)

    def add_operator(self, name: str, role: str, valid_s: int = 0) -> operator_pb2.AddOperatorResponse:
        """A login token for an operator; `valid_s` 0 means 24 hours. Roles are viewer, operator and admin."""
        request = operator_pb2.AddOperatorRequest(name=name, role=role, valid_s=valid_s)
        return self._line.once("AddOperator", request, operator_pb2.AddOperatorResponse)

    def operators(self) -> operator_pb2.ListOperatorsResponse:
        """Who has a role."""
        request = operator_pb2.ListOperatorsRequest()
        return self._line.once("ListOperators", request, operator_pb2.ListOperatorsResponse)

    def set_operator_role(self, name: str, role: str) -> None:
        """Another role for an operator."""
        request = operator_pb2.SetOperatorRoleRequest(name=name, role=role)
        self._line.once("SetOperatorRole", request, operator_pb2.SetOperatorRoleResponse)

    def remove_operator(self, name: str) -> operator_pb2.RemoveOperatorResponse:
        """An end to an operator."""
        request = operator_pb2.RemoveOperatorRequest(name=name)
        return self._line.once("RemoveOperator", request, operator_pb2.RemoveOperatorResponse)

    def renew_operator(self, csr_der: bytes) -> bytes:
        """A chain (PEM) for a new key of the caller."""
        request = operator_pb2.RenewOperatorRequest(csr_der=csr_der)
        answer = self._line.once("RenewOperator", request, operator_pb2.RenewOperatorResponse)
        return answer.certificate_chain_pem

    def audit(
        self, subject: str = "", actor: str = "", since_ms: int = 0, last: int = 0
    ) -> Iterator[operator_pb2.AuditEntry]:
        """Entries of the audit log, in their order; `last` 0: all."""
        request = operator_pb2.AuditRequest(subject=subject, actor=actor, since_unix_ms=since_ms, last=last)
        return self._line.many("Audit", request, operator_pb2.AuditEntry)
