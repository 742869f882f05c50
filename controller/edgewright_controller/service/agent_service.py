"""What devices call. Translate, call, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from grpc import StatusCode

from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc
from edgewright_controller.certificate_policy import TooOften
from edgewright_controller.pki import CsrRefused
from edgewright_controller.service.admission import Admission, RenewalRefused
from edgewright_controller.service.authorisation import Context, Gate, refuse
from edgewright_controller.service.blocks import BadRange, Blocks, NotHere, TooMany
from edgewright_controller.service.check_in import CheckInRefused, UnknownDevice
from edgewright_controller.service.unentered import Unentered

if TYPE_CHECKING:
    from edgewright_controller.service.check_in import CheckIns


class AgentService(agent_pb2_grpc.AgentServicer):
    """The service `Agent`; the gate has admitted the caller as a device."""

    def __init__(
        self, gate: Gate, check_ins: CheckIns, blocks: Blocks, admission: Admission, unentered: Unentered
    ) -> None:
        self._gate, self._check_ins, self._blocks, self._admission = gate, check_ins, blocks, admission
        self._unentered = unentered

    async def CheckIn(self, request: agent_pb2.CheckInRequest, context: Context) -> agent_pb2.CheckInResponse:
        """The status up, the metadata that the device lacks down."""
        caller = self._gate.caller(context)
        try:
            await self._unentered.see(caller)
            return await self._check_ins.answer(caller.id, request)
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

    async def Renew(self, request: agent_pb2.RenewRequest, context: Context) -> agent_pb2.RenewResponse:
        """Another certificate for the caller."""
        caller = self._gate.caller(context)
        try:
            await self._unentered.see(caller)
            chain = await self._admission.renew(caller, request.csr_der)
        except RenewalRefused as error:
            return await refuse(context, StatusCode.PERMISSION_DENIED, str(error))
        except CsrRefused as error:
            return await refuse(context, StatusCode.INVALID_ARGUMENT, str(error))
        except TooOften as error:
            return await refuse(context, StatusCode.RESOURCE_EXHAUSTED, str(error))
        return agent_pb2.RenewResponse(certificate_chain_pem=chain, enrolment_address=self._admission.address)


def _code(error: NotHere | BadRange | TooMany) -> StatusCode:
    if isinstance(error, NotHere):
        return StatusCode.NOT_FOUND
    return StatusCode.RESOURCE_EXHAUSTED if isinstance(error, TooMany) else StatusCode.INVALID_ARGUMENT
