"""What devices call. Translate, call, translate back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from grpc import StatusCode

from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc
from edgewright_controller.certificate_policy import TooOften
from edgewright_controller.pki import CsrRefused
from edgewright_controller.service.admission import Admission, RenewalRefused
from edgewright_controller.service.authorisation import Context, Gate, refuse
from edgewright_controller.service.blocks import BadRange, NotHere
from edgewright_controller.service.check_in import CheckInRefused, UnknownDevice
from edgewright_controller.service.download_slots import TooMany
from edgewright_controller.service.downloads import Downloads
from edgewright_controller.service.reading import TooSlow
from edgewright_controller.service.unentered import Unentered

if TYPE_CHECKING:
    from edgewright_controller.service.check_in import CheckIns


class AgentService(agent_pb2_grpc.AgentServicer):
    """The service `Agent`; the gate has admitted the caller as a device."""

    def __init__(
        self, gate: Gate, check_ins: CheckIns, downloads: Downloads, admission: Admission, unentered: Unentered
    ) -> None:
        self._gate, self._check_ins, self._downloads, self._admission = gate, check_ins, downloads, admission
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

    async def FetchObject(self, request: agent_pb2.FetchObjectRequest, context: Context) -> None:
        """A bundle or block index document."""
        await self._download(context, lambda device: self._downloads.document(device, request.sha256, context.write))

    async def FetchBlocks(self, request: agent_pb2.FetchBlocksRequest, context: Context) -> None:
        """Blocks of a bundle."""
        await self._download(context, lambda device: self._downloads.blocks(device, request, context.write))

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

    async def _download(self, context: Context, send: Callable[[str], Awaitable[None]]) -> None:
        try:
            await send(self._gate.caller(context).id)
        except NotHere as error:
            await refuse(context, StatusCode.NOT_FOUND, str(error))
        except BadRange as error:
            await refuse(context, StatusCode.INVALID_ARGUMENT, str(error))
        except TooMany as error:
            await refuse(context, StatusCode.RESOURCE_EXHAUSTED, str(error), again_s=error.again_s)
        except TooSlow as error:
            # It comes to an end with whoever reads on, or with the connection; the slot is another's already.
            await refuse(context, StatusCode.RESOURCE_EXHAUSTED, str(error))
