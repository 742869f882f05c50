"""The two gRPC servers: mutual TLS for devices and operators, TLS alone for devices that enrol."""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc.aio import server as new_server

from edgewright_controller.config import Address, SettingsError
from edgewright_controller.pki import KeyPair
from edgewright_controller.service.authorisation import Gate

# A manifest is the largest thing that comes in; metadata and status the largest that goes out.
MAX_MESSAGE_BYTES: Final = 8 << 20
MAX_ENROL_BYTES: Final = 64 << 10
HOUR_MS: Final = 3_600_000
# Agents ping every 20 s while they fetch, operators every 30 s while they watch. Whoever pings much more often than
# this is sent away.
PINGS_ALLOWED_EVERY_MS: Final = 10_000
MAX_CALLS: Final = 100
_MAX_DETAILS: Final = 32 << 10

Server = Any  # grpc has no types


class ServerCertificate:
    """The server's certificate, as new connections get it. Connections that stand keep theirs."""

    def __init__(self, pair: KeyPair, ca_pem: bytes) -> None:
        self._ca_pem = ca_pem
        self._configuration: Any
        self.replace(pair)

    def replace(self, pair: KeyPair) -> None:
        """Use another certificate from now on. Raises OSError."""
        chain = [(pair.key.read_bytes(), pair.chain.read_bytes())]
        self._configuration = grpc.ssl_server_certificate_configuration(chain, self._ca_pem)

    def credentials(self, *, clients: bool) -> Any:
        """gRPC's credentials; with `clients`, a client certificate of this fleet's authority is demanded."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, lambda: self._configuration, require_client_authentication=clients
        )


def open_server(
    address: Address,
    key: str,
    certificate: ServerCertificate,
    gate: Gate,
    *,
    clients: bool,
    pings_allowed_every_ms: int = PINGS_ALLOWED_EVERY_MS,
    connection_age_ms: int = HOUR_MS,
) -> tuple[Server, Address]:
    """A server that holds its port, and where. It answers once services are added and it is started.

    A client that pings more often than allowed loses its connection, streams and all.

    Raises SettingsError that names the setting `key` when the address cannot be had.
    """
    options = [
        # Without this a second controller would silently share the port.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES if clients else MAX_ENROL_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES * 8),
        # Calls of one connection at once. Of a download that was given up, gRPC holds a part until its reader takes it
        # or the connection ends.
        ("grpc.max_concurrent_streams", MAX_CALLS),
        # Long error messages travel in trailers, which gRPC bounds at 8 kB.
        ("grpc.max_metadata_size", _MAX_DETAILS),
        # Certificates are checked at every call, but TLS itself only here. Calls that run go on for as long as they
        # take: an operator may follow a compilation or a ramp for days.
        ("grpc.max_connection_age_ms", connection_age_ms),
        # By default gRPC allows one ping in five minutes, and ends quiet streams otherwise. The option is not called
        # what gRPC's C macro for it is, with "recv" in it; an unknown option is ignored without a word.
        ("grpc.http2.min_ping_interval_without_data_ms", pings_allowed_every_ms),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    server = new_server(interceptors=(gate,), options=options)
    try:
        port = server.add_secure_port(str(address), certificate.credentials(clients=clients))
    except RuntimeError as error:
        # What is wrong with an address alone was said before; what is left is two settings with one port, or bad luck.
        raise SettingsError(f"{key}: cannot listen on {address}; is the port taken? Name another") from error
    return server, Address(address.host, port)
