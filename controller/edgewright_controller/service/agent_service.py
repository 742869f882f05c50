"""What devices call. Translate, call, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from grpc import StatusCode

from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc
from edgewright_controller.service.authorisation import Context, Gate, refuse
from edgewright_controller.service.blocks import BadRange, Blocks, NotHere, TooMany
from edgewright_controller.service.check_in import CheckInRefused, UnknownDevice

if TYPE_CHECKING:
    from edgewright_controller.service.check_in import CheckIns


class AgentService(agent_pb2_grpc.AgentServicer):
    """The service `Agent`; the gate has admitted the caller as a device."""

    def __init__(self, gate: Gate, check_ins: CheckIns, blocks: Blocks) -> None:
        self._gate, self._check_ins, self._blocks = gate, check_ins, blocks

    async def CheckIn(self, request: agent_pb2.CheckInRequest, context: Context) -> agent_pb2.CheckInResponse:
        """The status up, the metadata that the device lacks down."""
        try:
            return await self._check_ins.answer(self._gate.device(context), request)
        except UnknownDevice as error:
            return await refuse(context, StatusCode.PERMISSION_DENIED, str(error))
        except CheckInRefused as error:
            return await refuse(context, StatusCode.INVALID_ARGUMENT, str(error))

    async def FetchObject(
        self, request: agent_pb2.FetchObjectRequest, context: Context
    ) -> AsyncIterator[agent_pb2.ObjectPart]:
        """A bundle or block index document."""
        try:
            async for part in self._blocks.object(request.sha256):
                yield agent_pb2.ObjectPart(data=part)
        except (NotHere, BadRange, TooMany) as error:
            await refuse(context, _code(error), str(error))

    async def FetchBlocks(
        self, request: agent_pb2.FetchBlocksRequest, context: Context
    ) -> AsyncIterator[agent_pb2.BlockPart]:
        """Blocks of a bundle."""
        try:
            async for part in self._blocks.blocks(request):
                yield part
        except (NotHere, BadRange, TooMany) as error:
            await refuse(context, _code(error), str(error))


def _code(error: NotHere | BadRange | TooMany) -> StatusCode:
    if isinstance(error, NotHere):
        return StatusCode.NOT_FOUND
    return StatusCode.RESOURCE_EXHAUSTED if isinstance(error, TooMany) else StatusCode.INVALID_ARGUMENT
