"""Many devices at once in one process: each with its own certificate and connection, reading, or not reading.

As a program it is given JSON in its argument: `address`, `target`, `devices` (their PEM files), `block_count`, `how`.
"stalled" prints a line when every device has its first part, and then waits for a line; "active" prints the seconds
that each device took for all blocks.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from edgewright_contract import retry_hint
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc

DEADLINE_S: Final = 600.0
HANDSHAKES: Final = 8
_PAUSE_S: Final = 1.0


class Reader:
    """One device."""

    def __init__(self, address: str, files: Mapping[str, str], target: ImageTarget, block_count: int) -> None:
        key, chain, ca = (Path(files[name]).read_bytes() for name in ("key", "chain", "ca"))
        credentials = grpc.ssl_channel_credentials(ca, key, chain)
        options = [("grpc.use_local_subchannel_pool", 1)]  # else those with one certificate would share a connection
        self._channel = grpc.aio.secure_channel(address, credentials, options=options)
        self._stub: Any = agent_pb2_grpc.AgentStub(self._channel)
        self._target, self._count = target, block_count

    async def connect(self, turn: asyncio.Semaphore) -> None:
        """Have a connection; handshakes are a load of their own, and take turns."""
        async with turn:
            await asyncio.wait_for(self._channel.channel_ready(), DEADLINE_S)

    async def begin(self) -> Any:
        """A call of which one part was read, and no more will be."""
        call = self._call(0)
        await anext(aiter(call))
        return call

    async def all(self) -> float:
        """Read every block, coming back when told to; the seconds that it took."""
        began, at, behind = time.monotonic(), 0, -1
        while at < self._count:
            try:
                async for part in self._call(at):
                    behind = part.index
                at = self._count if behind == self._count - 1 else behind + 1
            except grpc.aio.AioRpcError as error:
                told_s = retry_hint.decoded(dict(error.trailing_metadata() or ()).get(retry_hint.KEY))
                if told_s is None and error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                at = max(at, behind)
                await asyncio.sleep(_PAUSE_S if told_s is None else told_s)
        return time.monotonic() - began

    async def close(self) -> None:
        """End its connection."""
        await self._channel.close()

    def _call(self, first: int) -> Any:
        request = agent_pb2.FetchBlocksRequest(bundle=self._target.bundle, block_index=self._target.block_index)
        request.ranges.add(first=first, count=self._count - first)
        return self._stub.FetchBlocks(request, timeout=DEADLINE_S)


async def main() -> None:
    """As the module says."""
    given = json.loads(sys.argv[1])
    target = ImageTarget(**given["target"])
    readers = [Reader(given["address"], files, target, given["block_count"]) for files in given["devices"]]
    turn = asyncio.Semaphore(HANDSHAKES)
    await asyncio.gather(*(reader.connect(turn) for reader in readers))
    if given["how"] == "active":
        print(json.dumps(await asyncio.gather(*(reader.all() for reader in readers))), flush=True)
    else:
        calls = await asyncio.gather(*(reader.begin() for reader in readers))
        print(json.dumps({"begun": len(calls)}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    for reader in readers:
        await reader.close()


if __name__ == "__main__":
    asyncio.run(main())
