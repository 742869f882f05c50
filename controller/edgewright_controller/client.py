"""The operator's side of the wire: a typed, synchronous client of one controller.

Two errors, because a caller does two different things: start or find the controller
(ControllerUnreachable), or change what it asked (Refused).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import grpc
import tomli

from edgewright_contract import small_file
from edgewright_contract.v1 import operator_pb2, operator_pb2_grpc

CONNECT_S: Final = 10.0
LOOK_S: Final = 1.0
CALL_S: Final = 60.0
PING_EVERY_MS: Final = 30_000
MAX_MESSAGE_BYTES: Final = 64 << 20
MAX_ACCESS_BYTES: Final = 64 << 10
_KEYS: Final = ("address", "certificate", "key", "ca")

# What can be done to a rollout, by the wire's names.
Control = Literal["ACTION_PAUSE", "ACTION_RESUME", "ACTION_ABORT_KEEP", "ACTION_ABORT_REVERT"]

# What the network, not the controller, says.
_UNREACHABLE: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # a controller that stops ends its streams like this
)


class ClientError(Exception):
    """The controller could not be asked, or said no."""


class ControllerUnreachable(ClientError):
    """Nobody answered, or not with this fleet's certificate."""


class Refused(ClientError):
    """The controller answered, and refused; the message is the controller's. `bad_input` tells whether
    what was sent is at fault (a manifest, an id) rather than the state of the fleet."""

    def __init__(self, message: str, *, bad_input: bool) -> None:
        super().__init__(message)
        self.bad_input = bad_input


class AccessError(ClientError):
    """The file that says how to reach the controller, or one that it names, cannot be used."""


@dataclass(frozen=True)
class Access:
    """How to reach a controller: `host:port`, and three PEM files."""

    address: str
    certificate: Path
    key: Path
    ca: Path


def read_access(file: Path, address: str | None = None) -> Access:
    """The access in a TOML file of keys address, certificate, key, ca; paths are relative to the file.

    `address` overrides the file's. Raises AccessError.
    """
    try:
        document: Mapping[str, Any] = tomli.loads(small_file.read_text(file, MAX_ACCESS_BYTES))
    except OSError as error:
        raise AccessError(
            f"{file}: {error.strerror}; `edgewright serve` writes one to operator/client.toml in its state folder, "
            "name it with --config or EDGEWRIGHT_CONFIG"
        ) from error
    except small_file.TooLarge as error:
        raise AccessError(f"{file}: {error}; that is no access file") from error
    except ValueError as error:
        raise AccessError(f"{file}: not TOML: {error}") from error
    for key in document:
        if key not in _KEYS:
            raise AccessError(f"{file}: {key}: unknown key; there are {', '.join(_KEYS)}")
    for key in _KEYS:
        if not isinstance(document.get(key), str):
            raise AccessError(f"{file}: {key}: missing, or not text")
    certificate, private, ca = (file.parent / Path(document[name]).expanduser() for name in _KEYS[1:])
    return Access(address or document["address"], certificate, private, ca)


class Fleet:
    """A connection to one controller, as an operator. Use as a context manager, or `close` it."""

    def __init__(self, access: Access, *, ping_every_ms: int = PING_EVERY_MS) -> None:
        """Reads the three files; connects at the first call. Raises AccessError.

        `ping_every_ms`: how soon a dead line under a quiet stream is noticed; a controller allows one in 10 s.
        """
        self._address, self._reached = access.address, False
        pems = []
        for file in (access.ca, access.key, access.certificate):
            try:
                pems.append(file.read_bytes())
            except OSError as error:
                raise AccessError(f"{file}: {error.strerror}") from error
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # The lines of a refused manifest come in one trailer.
            ("grpc.max_metadata_size", 32 << 10),
            ("grpc.keepalive_time_ms", ping_every_ms),
            # Without this, gRPC stops pinging under a stream on which nothing is sent: every one of ours.
            ("grpc.http2.max_pings_without_data", 0),
            # A controller that is started in the next second should be found in the next second.
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self._channel = grpc.secure_channel(access.address, grpc.ssl_channel_credentials(*pems), options)
        stub: Any = operator_pb2_grpc.OperatorStub  # generated code has no types
        self._stub = stub(self._channel)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection; streams end."""
        self._channel.close()

    def plan(self, manifest: str, file: str, folder: str) -> operator_pb2.PlanResponse:
        """What `apply` would do."""
        request = operator_pb2.PlanRequest(manifest=manifest, file=file, folder=folder)
        # Reading a large checkpoint takes its time, once. A line that is dead is found by pings.
        response: operator_pb2.PlanResponse = self._once(self._stub.Plan, request, timeout_s=None)
        return response

    def apply(
        self, manifest: str, file: str, folder: str, *, again: bool = False, build_only: bool = False
    ) -> Iterator[operator_pb2.ApplyEvent]:
        """Start the change and follow it; the last event holds a result. It goes on when the caller leaves."""
        request = operator_pb2.ApplyRequest(
            manifest=manifest, file=file, folder=folder, again=again, build_only=build_only
        )
        return self._many(self._stub.Apply, request)

    def rollback(self, release: str = "", devices: Sequence[str] = ()) -> Iterator[operator_pb2.ApplyEvent]:
        """Return devices to the release before, and follow it; the last event holds a result."""
        return self._many(self._stub.Rollback, operator_pb2.RollbackRequest(release=release, devices=devices))

    def control(self, rollout: str, action: Control, reason: str = "") -> operator_pb2.ControlRolloutResponse:
        """Pause, resume or abort a rollout."""
        request = operator_pb2.ControlRolloutRequest(rollout=rollout, action=action, reason=reason)
        response: operator_pb2.ControlRolloutResponse = self._once(self._stub.ControlRollout, request)
        return response

    def rollouts(self, limit: int = 0) -> operator_pb2.ListRolloutsResponse:
        """Rollouts, the newest first, also those that ended; `limit` 0: as many as the controller gives."""
        request = operator_pb2.ListRolloutsRequest(limit=limit)
        response: operator_pb2.ListRolloutsResponse = self._once(self._stub.ListRollouts, request)
        return response

    def status(self, devices: Sequence[str] = (), limit: int = 0) -> operator_pb2.StatusResponse:
        """What the controller knows of the fleet."""
        request = operator_pb2.StatusRequest(devices=devices, limit=limit)
        response: operator_pb2.StatusResponse = self._once(self._stub.Status, request)
        return response

    def tail(self, devices: Sequence[str] = ()) -> Iterator[operator_pb2.TailEvent]:
        """What devices report, as it comes in, until the caller stops."""
        return self._many(self._stub.Tail, operator_pb2.TailRequest(devices=devices))

    def create_enrolment(self, device: str, valid_s: int = 0) -> operator_pb2.CreateEnrolmentResponse:
        """A token with which `device` can enrol once; `valid_s` 0 means 24 hours."""
        request = operator_pb2.CreateEnrolmentRequest(device=device, valid_s=valid_s)
        response: operator_pb2.CreateEnrolmentResponse = self._once(self._stub.CreateEnrolment, request)
        return response

    def revoke(
        self, kind: operator_pb2.RevokeRequest.Kind, holder: str, reason: str = ""
    ) -> operator_pb2.RevokeResponse:
        """End all certificates of a device or an operator."""
        request = operator_pb2.RevokeRequest(kind=kind, holder=holder, reason=reason)
        response: operator_pb2.RevokeResponse = self._once(self._stub.Revoke, request)
        return response

    def create_mandate(
        self, device: str = "", profile: str = "", release: str = "", valid_s: int = 0
    ) -> operator_pb2.CreateMandateResponse:
        """An offline mandate for a device or a profile, that nobody has signed yet."""
        request = operator_pb2.CreateMandateRequest(device=device, profile=profile, release=release, valid_s=valid_s)
        response: operator_pb2.CreateMandateResponse = self._once(self._stub.CreateMandate, request)
        return response

    def authorise_key(self, device: str, public_key_pem: str) -> operator_pb2.AuthoriseKeyResponse:
        """Let the holder of this key enrol as `device`, once."""
        request = operator_pb2.AuthoriseKeyRequest(device=device, public_key_pem=public_key_pem)
        response: operator_pb2.AuthoriseKeyResponse = self._once(self._stub.AuthoriseKey, request)
        return response

    def whoami(self) -> operator_pb2.WhoamiResponse:
        """Who this certificate is to the controller."""
        response: operator_pb2.WhoamiResponse = self._once(self._stub.Whoami, operator_pb2.WhoamiRequest())
        return response

    def add_operator(self, name: str, role: str, valid_s: int = 0) -> operator_pb2.AddOperatorResponse:
        """A login token for an operator; `valid_s` 0 means 24 hours."""
        request = operator_pb2.AddOperatorRequest(name=name, role=role, valid_s=valid_s)
        response: operator_pb2.AddOperatorResponse = self._once(self._stub.AddOperator, request)
        return response

    def operators(self) -> operator_pb2.ListOperatorsResponse:
        """Who has a role."""
        request = operator_pb2.ListOperatorsRequest()
        response: operator_pb2.ListOperatorsResponse = self._once(self._stub.ListOperators, request)
        return response

    def set_operator_role(self, name: str, role: str) -> None:
        """Another role for an operator."""
        self._once(self._stub.SetOperatorRole, operator_pb2.SetOperatorRoleRequest(name=name, role=role))

    def remove_operator(self, name: str) -> operator_pb2.RemoveOperatorResponse:
        """An end to an operator."""
        request = operator_pb2.RemoveOperatorRequest(name=name)
        response: operator_pb2.RemoveOperatorResponse = self._once(self._stub.RemoveOperator, request)
        return response

    def renew_operator(self, csr_der: bytes) -> bytes:
        """A chain (PEM) for a new key of the caller."""
        request = operator_pb2.RenewOperatorRequest(csr_der=csr_der)
        response: operator_pb2.RenewOperatorResponse = self._once(self._stub.RenewOperator, request)
        return response.certificate_chain_pem

    def audit(
        self, subject: str = "", actor: str = "", since_ms: int = 0, last: int = 0
    ) -> Iterator[operator_pb2.AuditEntry]:
        """Entries of the audit log, in their order."""
        request = operator_pb2.AuditRequest(subject=subject, actor=actor, since_unix_ms=since_ms, last=last)
        return self._many(self._stub.Audit, request)

    def _once(self, method: Any, request: Any, timeout_s: float | None = CALL_S) -> Any:
        self._reach()
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._said(error) from error

    def _many(self, method: Any, request: Any) -> Iterator[Any]:
        self._reach()
        call = method(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._said(error) from error
        finally:
            call.cancel()

    def _reach(self) -> None:
        """Wait for the connection, once, so that a stream without a deadline cannot wait for ever on nobody."""
        if self._reached:
            return
        try:
            grpc.channel_ready_future(self._channel).result(timeout=CONNECT_S)
        except grpc.FutureTimeoutError as error:
            if _listens(self._address):
                raise ControllerUnreachable(
                    f"what answers at {self._address} is no controller of this operator's fleet: "
                    "check the address, and the certificate, key and ca of --config"
                ) from error
            raise ControllerUnreachable(
                f"no controller at {self._address}; start one with `edgewright serve`, "
                "or name another with --controller"
            ) from error
        self._reached = True

    def _said(self, error: Any) -> ClientError:
        code, details = error.code(), error.details() or ""
        if code in _UNREACHABLE:
            return ControllerUnreachable(
                f"the controller at {self._address} went away: {details or code.name}; what it has begun goes on when"
                " it is back: `edgewright status` shows it"
            )
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return ControllerUnreachable(
                f"what answers at {self._address} does not know this command: is it the enrolment's address, or an"
                " older controller?"
            )
        bad_input = code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
        return Refused(details or f"the controller answered {code.name}", bad_input=bad_input)


def _listens(address: str) -> bool:
    """Whether anybody is there at all."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_S).close()
    except (OSError, ValueError):
        return False
    return True
