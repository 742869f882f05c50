"""The operator's side of the wire: a typed, synchronous client of one controller.

    from edgewright_controller.client import Fleet

    with Fleet.connect() as fleet:
        for device in fleet.status().devices:
            print(device.device, device.online)

Answers are the messages of `edgewright_contract.v1.operator_pb2`, whose stubs give every field its type. Every error is
a ClientError; there are three, because a caller does three different things: mend the file that names the controller
(AccessError), start or find the controller (ControllerUnreachable), or change what it asked (Refused).
"""

from __future__ import annotations

from edgewright_controller.client.access import Access, read_access
from edgewright_controller.client.errors import AccessError, ClientError, ControllerUnreachable, Refused
from edgewright_controller.client.fleet import Fleet

__all__ = ["Access", "AccessError", "ClientError", "ControllerUnreachable", "Fleet", "Refused", "read_access"]
