"""One connection to one controller: calls with a deadline, streams that end, and errors in an operator's words."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from edgewright_contract.v1 import operator_pb2, operator_pb2_grpc
from edgewright_controller.client.access import Access
from edgewright_controller.client.errors import AccessError, ClientError, ControllerUnreachable, Refused

CONNECT_S: Final = 10.0
LOOK_S: Final = 1.0
CALL_S: Final = 60.0
PING_EVERY_MS: Final = 30_000
MAX_MESSAGE_BYTES: Final = 64 << 20

# Asked again by gRPC itself when the line breaks before the answer: nothing changes by asking twice. A controller that
# was just started again, or a line that died while nobody spoke, then costs a moment and no error.
_READS: Final = (
    "BuildLog",
    "FetchProvenance",
    "History",
    "ListBuilds",
    "ListModels",
    "ListOperators",
    "ListReleases",
    "ListRollouts",
    "Plan",
    "ShowDevice",
    "ShowModel",
    "ShowRelease",
    "ShowRollout",
    "Status",
    "Whoami",
)
_RETRYING: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": operator_pb2.DESCRIPTOR.services_by_name["Operator"].full_name, "method": method}
                    for method in _READS
                ],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

# What the network, not the controller, says.
_UNREACHABLE: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # a controller that stops ends its streams like this
)

M = TypeVar("M", bound=Message)


class Connection:
    """A channel that is opened at the first call. Methods go by their names in the service Operator; `answer` is what
    comes back."""

    def __init__(self, access: Access, *, ping_every_ms: int = PING_EVERY_MS, patience_s: float | None = None) -> None:
        """Reads the three files; connects at the first call. Raises AccessError.

        `ping_every_ms`: how soon a dead line under a quiet stream is noticed; a controller allows one in 10 s.
        `patience_s`: seconds for the connection, and for each answer; None: 10 and 60.
        """
        self._address, self._reached = access.address, False
        self._connect_s = CONNECT_S if patience_s is None else patience_s
        self._call_s = CALL_S if patience_s is None else patience_s
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
            ("grpc.service_config", _RETRYING),
        ]
        self._channel = grpc.secure_channel(access.address, grpc.ssl_channel_credentials(*pems), options)
        stub: Any = operator_pb2_grpc.OperatorStub  # generated code has no types
        self._stub = stub(self._channel)

    def close(self) -> None:
        """Give up the connection; streams end."""
        self._channel.close()

    def once(self, method: str, request: Message, answer: type[M], *, patient: bool = False) -> M:
        """The answer to one request; `patient`: however long it takes. Raises ClientError."""
        self._reach()
        try:
            said = getattr(self._stub, method)(request, timeout=None if patient else self._call_s)
        except grpc.RpcError as error:
            raise self._said(error) from error
        assert isinstance(said, answer)  # the generated stub makes nothing else of the bytes
        return said

    def many(self, method: str, request: Message, answer: type[M]) -> Iterator[M]:
        """The answers to one request, which is sent at once. Raises ClientError, here or while it is read."""
        self._reach()
        return self._read(getattr(self._stub, method)(request))

    def _read(self, call: Any) -> Iterator[Any]:
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
            grpc.channel_ready_future(self._channel).result(timeout=self._connect_s)
        except grpc.FutureTimeoutError as error:
            if _listens(self._address, min(LOOK_S, self._connect_s)):
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


def _listens(address: str, within_s: float) -> bool:
    """Whether anybody is there at all."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=within_s).close()
    except (OSError, ValueError):
        return False
    return True
