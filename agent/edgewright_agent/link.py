"""The device's line to the controller: gRPC over mutual TLS, synchronous, for use from threads.

Every call has a deadline. What can go wrong falls into two kinds: LinkDown, try again later, and
Refused, trying again is no use. A stream that is cut gives what came before the cut.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import DeviceKey
from edgewright_agent.read_ahead import ahead
from edgewright_contract import digest, retry_hint
from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc

CHECK_IN_S: Final = 30.0
OBJECT_S: Final = 120.0
# A call fetches what its line brings in a fraction of this.
BLOCKS_S: Final = 120.0
# A source that drips is as good as dead, and holds on longer than one that is dead: it is left for another try.
SLOW_AFTER_S = 60.0
SLOWEST_BYTES_PER_S: Final = 8 << 10
MAX_PART_BYTES: Final = 256 << 10
_MAX_ANSWER_BYTES: Final = 16 << 20

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", 4 << 20),
    # Finds a dead line under a stream within half a minute. Idle channels send nothing.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # Without this, gRPC stops pinging under a stream on which only the controller sends: every download.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    ("grpc.enable_retries", 0),
    # What may be under way and unread, instead of what gRPC guesses, which on a quick line is tens of MB: a device has
    # no memory for that, and all of it is lost when the line breaks. With 50 ms of delay, this allows for 80 MB/s.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
)
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


class LinkDown(Exception):
    """The controller cannot be reached now, or is too busy. Try again later: after `again_s` seconds, if it said so."""

    def __init__(self, message: str = "", again_s: float | None = None) -> None:
        self.again_s = again_s
        super().__init__(message)


class Refused(Exception):
    """The controller answered, and the answer is no."""


class BadAnswer(Exception):
    """The controller sent what is not what was asked for."""


@dataclass(frozen=True)
class Credentials:
    """The device's key, and the files (PEM) of its certificate chain and of the fleet's root."""

    key: DeviceKey
    certificate: Path
    ca: Path


class BlockSource(Protocol):
    """Where documents and blocks come from. `name` is for messages."""

    name: str

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes: ...

    def fetch_blocks(
        self,
        bundle: str,
        block_index: str,
        ranges: Sequence[tuple[int, int]],
        max_bytes: int,
        cancellation: Cancellation,
        *,
        accepted: Sequence[agent_pb2.Encoding] = (agent_pb2.ENCODING_RAW,),
        bases: Sequence[str] = (),
    ) -> Generator[agent_pb2.BlockPart, None, None]: ...


class _Channel:
    """One channel, which lasts as long as somebody calls over it after it was retired."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        ca, chain = credentials.ca.read_bytes(), credentials.certificate.read_bytes()
        channel_credentials = credentials.key.channel_credentials(ca, chain)
        self._channel = grpc.secure_channel(address, channel_credentials, options=_OPTIONS)
        self.stub: Any = agent_pb2_grpc.AgentStub(self._channel)
        self.calls = 0

    def close(self) -> None:
        self._channel.close()


class Link:
    """One channel to the controller at `address` (host:port), whose certificate must name that host.

    `why_down` says what of the device's own may be why nobody answers; empty: nothing.
    """

    def __init__(self, address: str, credentials: Credentials, why_down: Callable[[], str] = lambda: "") -> None:
        """Does not connect yet. Raises OSError when a file of the identity cannot be read."""
        self.name = f"controller {address}"
        self._address, self._why_down = address, why_down
        self._lock = threading.Lock()
        self._now = _Channel(address, credentials)

    def use(self, credentials: Credentials) -> None:
        """Make every call from now on with these; a channel keeps those with which it was made.

        What runs goes on over the old channel to its end. Raises OSError.
        """
        channel = _Channel(self._address, credentials)
        with self._lock:
            old, self._now = self._now, channel
            idle = old.calls == 0
        if idle:
            old.close()

    def check_in(self, request: agent_pb2.CheckInRequest) -> agent_pb2.CheckInResponse:
        """One round trip. Raises LinkDown, Refused."""
        with self._calling() as stub:
            try:
                answer: agent_pb2.CheckInResponse = stub.CheckIn(request, timeout=CHECK_IN_S)
            except grpc.RpcError as error:
                raise self._explained(error, "check-in") from error
            return answer

    def renew(self, csr_der: bytes) -> agent_pb2.RenewResponse:
        """Another certificate, or once more the one that the request's key got. Raises LinkDown, Refused."""
        with self._calling() as stub:
            try:
                request = agent_pb2.RenewRequest(csr_der=csr_der)
                answer: agent_pb2.RenewResponse = stub.Renew(request, timeout=CHECK_IN_S)
            except grpc.RpcError as error:
                raise self._explained(error, "renewal") from error
            return answer

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        """The document of this digest and length, both checked. Raises LinkDown, Refused, BadAnswer, Cancelled."""
        cancellation.check()
        data = bytearray()
        with self._calling() as stub:
            call = stub.FetchObject(agent_pb2.FetchObjectRequest(sha256=sha256), timeout=OBJECT_S)
            for part in self._parts(call, "fetching a document", cancellation):
                if len(data) + len(part.data) > length:
                    raise BadAnswer(f"{self.name}: document {sha256[:12]} is longer than its signed {length} bytes")
                data += part.data
        if len(data) != length or digest.of_bytes(bytes(data)) != sha256:
            raise BadAnswer(f"{self.name}: document {sha256[:12]} is not what was signed")
        return bytes(data)

    def fetch_blocks(
        self,
        bundle: str,
        block_index: str,
        ranges: Sequence[tuple[int, int]],
        max_bytes: int,
        cancellation: Cancellation,
        *,
        accepted: Sequence[agent_pb2.Encoding] = (agent_pb2.ENCODING_RAW,),
        bases: Sequence[str] = (),
    ) -> Generator[agent_pb2.BlockPart, None, None]:
        """Pieces of the blocks in `ranges` (first, count), unchecked, in order; fewer when the server stops early.

        Each block in one of the encodings `accepted`, raw among them, perhaps against bytes of a bundle in `bases`.
        Raises LinkDown, Refused, Cancelled, also in the middle.
        """
        cancellation.check()
        request = agent_pb2.FetchBlocksRequest(
            bundle=bundle,
            block_index=block_index,
            ranges=[agent_pb2.BlockRange(first=first, count=count) for first, count in ranges],
            accepted=accepted,
            max_bytes=max_bytes,
            bases=bases,
        )
        with self._calling() as stub:
            yield from self._parts(stub.FetchBlocks(request, timeout=BLOCKS_S), "fetching blocks", cancellation)

    def close(self) -> None:
        """End all calls."""
        self._now.close()

    @contextmanager
    def _calling(self) -> Iterator[Any]:
        """The stub for one call, over a channel that outlives the call."""
        with self._lock:
            channel = self._now
            channel.calls += 1
        try:
            yield channel.stub
        finally:
            with self._lock:
                channel.calls -= 1
                over = channel is not self._now and channel.calls == 0
            if over:
                channel.close()

    def _parts(self, call: Any, what: str, cancellation: Cancellation) -> Iterator[Any]:
        try:
            with cancellation.calling(call.cancel), closing(ahead(call, call.cancel)) as parts:
                # What the caller takes to decode and write is not the source's to answer for.
                waited, asked, came = 0.0, time.monotonic(), 0
                for part in parts:
                    size = len(part.data)  # asked for once, since each time copies the data
                    if size > MAX_PART_BYTES:
                        raise BadAnswer(f"{self.name}: a part of {size} bytes, at most {MAX_PART_BYTES}")
                    came += size
                    waited += time.monotonic() - asked
                    if waited > SLOW_AFTER_S and came < waited * SLOWEST_BYTES_PER_S:
                        told = f"{came} bytes in {waited:.0f} s; that is too slow to go on"
                        raise LinkDown(f"{self.name}: {what}: {told}")
                    yield part
                    asked = time.monotonic()
        except grpc.RpcError as error:
            cancellation.check()
            if _code(error) is grpc.StatusCode.DATA_LOSS:
                raise BadAnswer(f"{self.name}: {what}: {_details(error)}") from error
            raise self._explained(error, what) from error
        finally:
            call.cancel()

    def _explained(self, error: grpc.RpcError, what: str) -> LinkDown | Refused:
        code = _code(error)
        # TLS says no more than that the connection was closed.
        why = self._why_down()
        said = f"{self.name}: {what}: {code.name.lower().replace('_', ' ')}: {_details(error)}"
        said = f"{said}; {why}" if why else said
        return LinkDown(said, _hint(error)) if code in _AGAIN else Refused(said)


# An RpcError that a call raises is that call itself, which its type does not say.
def _code(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = call.code()
    return code


def _hint(call: Any) -> float | None:
    """When to ask again, in seconds from now, as far as a controller said so."""
    said = dict(call.trailing_metadata() or ())
    return retry_hint.decoded(said.get(retry_hint.KEY))


def _details(call: Any) -> str:
    return (call.details() or "")[:500]
