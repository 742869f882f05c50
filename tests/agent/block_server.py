"""A real controller's block service, over real mutual TLS, that can be told to misbehave."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from edgewright_contract import block_index, bundle, digest, retry_hint
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc
from tests.agent.throwaway_ca import Leaf

PART_BYTES = 256 << 10


@dataclass
class Mischief:
    """What goes wrong, and how often. Each count falls to zero as it happens."""

    flips: Counter[int] = field(default_factory=Counter)  # block → times it is sent with a flipped byte
    cut_every: int = 0  # bytes after which a stream breaks off
    cuts: int = 0
    unavailable: int = 0  # calls
    hints: list[str] = field(default_factory=list)  # calls that are refused as too many, each with this hint
    refuse: grpc.StatusCode | None = None
    wrong_index: bool = False
    too_long: bool = False
    stall: bool = False
    drips: int = 0  # calls that are answered byte by byte
    before: Callable[[Any], None] | None = None  # called with each call's context before anything is sent


@dataclass(frozen=True)
class Coded:
    """How a block is sent to whoever accepts it: `against` names the artifact that `base` is in, empty: none."""

    encoding: agent_pb2.Encoding
    data: bytes
    against: str = ""
    base: agent_pb2.BlockBase | None = None  # without `bundle`, which the request decides
    encoded_size: int | None = None  # what is said instead of the truth

    def parts(self, index: int, bases: Sequence[str]) -> Iterator[agent_pb2.BlockPart]:
        base = None
        if self.base is not None:
            base = agent_pb2.BlockBase()
            base.CopyFrom(self.base)
            base.bundle = base.bundle or list(bases).index(self.against)
        size: int | None = len(self.data) if self.encoded_size is None else self.encoded_size
        for start in range(0, len(self.data), PART_BYTES):
            data = self.data[start : start + PART_BYTES]
            yield agent_pb2.BlockPart(index=index, encoding=self.encoding, data=data, encoded_size=size, base=base)
            base = size = None


class BlockServer(agent_pb2_grpc.AgentServicer):
    """Serves the artifact folder, and what `add` adds. `sent` counts the bytes of blocks that left."""

    def __init__(self, folder: Path, leaf: Leaf, runtime: str = "gguf", port: int = 0) -> None:
        self.mischief = Mischief()
        self.sent = 0
        self.calls = 0
        self.requests_for_blocks: list[agent_pb2.FetchBlocksRequest] = []
        self.coded: dict[int, Coded] = {}
        self.check_ins: list[agent_pb2.CheckInRequest] = []
        self.objects: dict[str, bytes] = {}
        self._folders: dict[str, tuple[Path, block_index.BlockIndex]] = {}
        self.target = self.add(folder, runtime)
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        agent_pb2_grpc.add_AgentServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [(leaf.key.read_bytes(), leaf.certificate.read_bytes())], leaf.ca.read_bytes(), True
        )
        self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self._server.start()

    def add(self, folder: Path, runtime: str = "gguf") -> ImageTarget:
        """Serve this artifact too; its target."""
        made = bundle.from_folder(folder)
        document, cut = made.encode(), block_index.cut(made, folder)
        self._folders[made.digest] = folder, block_index.parse(cut, made)
        self.objects |= {digest.of_bytes(data): data for data in (document, cut)}
        return ImageTarget(
            kind="model",
            name="smollm2",
            hw_class=f"{runtime}-cpu",
            runtime=runtime,
            bundle=made.digest,
            bundle_length=len(document),
            block_index=digest.of_bytes(cut),
            block_index_length=len(cut),
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def first_block(self) -> bytes:
        folder, index = self._folders[self.target.bundle]
        return _read(folder, index.blocks[0])

    def stop(self) -> None:
        self._server.stop(0).wait()

    def CheckIn(self, request: agent_pb2.CheckInRequest, context: Any) -> agent_pb2.CheckInResponse:
        self.check_ins.append(request)
        if self.mischief.refuse is not None:
            context.abort(self.mischief.refuse, "told to")
        return agent_pb2.CheckInResponse(next_check_in_s=60)

    def FetchObject(self, request: agent_pb2.FetchObjectRequest, context: Any) -> Iterator[agent_pb2.ObjectPart]:
        data = self.objects.get(request.sha256)
        if data is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such document")
            return
        for start in range(0, len(data), PART_BYTES):
            yield agent_pb2.ObjectPart(data=data[start : start + PART_BYTES])

    def FetchBlocks(self, request: agent_pb2.FetchBlocksRequest, context: Any) -> Iterator[agent_pb2.BlockPart]:
        self.calls += 1
        self.requests_for_blocks.append(request)
        mischief, since = self.mischief, 0
        if mischief.before is not None:
            mischief.before(context)
        if mischief.unavailable:
            mischief.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "told to")
        if mischief.hints:
            context.set_trailing_metadata(((retry_hint.KEY, mischief.hints.pop(0)),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
        if mischief.refuse is not None:
            context.abort(mischief.refuse, "told to")
        folder, index = self._folders[request.bundle]
        for wanted in request.ranges:
            for block in index.blocks[wanted.first : wanted.first + wanted.count]:
                data = bytearray(_read(folder, block))
                if mischief.drips:
                    mischief.drips -= 1
                    yield from _drip(bytes(data), block.index, context)
                    return
                coded = self.coded.get(block.index)
                if (
                    coded
                    and coded.encoding in request.accepted
                    and (not coded.against or coded.against in request.bases)
                ):
                    self.sent += len(coded.data)
                    yield from coded.parts(block.index, request.bases)
                    continue
                if mischief.flips[block.index]:
                    mischief.flips[block.index] -= 1
                    data[len(data) // 2] ^= 1
                if mischief.too_long:
                    data += b"x"
                for start in range(0, len(data), PART_BYTES):
                    part = bytes(data[start : start + PART_BYTES])
                    if mischief.cuts and since + len(part) > mischief.cut_every:
                        mischief.cuts -= 1
                        context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                    since += len(part)
                    self.sent += len(part)
                    number = block.index + 1 if mischief.wrong_index else block.index
                    yield agent_pb2.BlockPart(index=number, encoding=agent_pb2.ENCODING_RAW, data=part)
                if mischief.stall:
                    ended = threading.Event()
                    context.add_callback(ended.set)
                    ended.wait(30)
                    return


def _drip(data: bytes, index: int, context: Any) -> Iterator[agent_pb2.BlockPart]:
    """A byte every 20 ms, for as long as somebody takes them."""
    ended = threading.Event()
    context.add_callback(ended.set)
    for one in data:
        yield agent_pb2.BlockPart(index=index, encoding=agent_pb2.ENCODING_RAW, data=bytes([one]))
        if ended.wait(0.02):
            return


def _read(folder: Path, block: block_index.Block) -> bytes:
    with open(folder / block.path, "rb") as file:
        file.seek(block.offset)
        return file.read(block.size)
