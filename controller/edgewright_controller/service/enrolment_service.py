"""What a device without a certificate calls. Translate, call, translate back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from grpc import StatusCode

from edgewright_contract.v1 import enrolment_pb2, enrolment_pb2_grpc
from edgewright_controller.enrolment import EnrolmentRefused, KeyRevoked
from edgewright_controller.service.authorisation import Context, refuse


@dataclass(frozen=True)
class Welcome:
    """What every device of the fleet is told when it enrols."""

    fleet: str
    ca_pem: bytes
    image_root: bytes
    director_root: bytes
    controller_address: str
    mqtt_address: str  # empty: no broker


class EnrolmentService(enrolment_pb2_grpc.EnrolmentServicer):
    """The service `Enrolment`. `enrol` gives (device, chain) for a secret and a CSR, or raises EnrolmentRefused."""

    def __init__(
        self,
        enrol: Callable[[str, bytes], Awaitable[tuple[str, bytes]]],
        login: Callable[[str, bytes], Awaitable[tuple[str, str, bytes]]],
        welcome: Welcome,
    ) -> None:
        """`login` gives (name, role, chain) for the secret of an operator's token and a CSR."""
        self._enrol, self._login, self._welcome = enrol, login, welcome

    async def Login(self, request: enrolment_pb2.LoginRequest, context: Context) -> enrolment_pb2.LoginResponse:
        """An operator's certificate for the key in the request."""
        try:
            name, role, chain = await self._login(request.token, request.csr_der)
        except EnrolmentRefused as error:
            return await refuse(context, StatusCode.PERMISSION_DENIED, str(error))
        welcome = self._welcome
        return enrolment_pb2.LoginResponse(
            certificate_chain_pem=chain,
            ca_pem=welcome.ca_pem,
            name=name,
            role=role,
            fleet=welcome.fleet,
            controller_address=welcome.controller_address,
        )

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Context) -> enrolment_pb2.EnrolResponse:
        """A certificate for the key in the request."""
        try:
            device, chain = await self._enrol(request.token, request.csr_der)
        except KeyRevoked as error:
            return await refuse(context, StatusCode.FAILED_PRECONDITION, str(error))
        except EnrolmentRefused as error:
            return await refuse(context, StatusCode.PERMISSION_DENIED, str(error))
        welcome = self._welcome
        return enrolment_pb2.EnrolResponse(
            certificate_chain_pem=chain,
            ca_pem=welcome.ca_pem,
            device=device,
            fleet=welcome.fleet,
            image_root=welcome.image_root,
            director_root=welcome.director_root,
            controller_address=welcome.controller_address,
            mqtt_address=welcome.mqtt_address,
        )
