"""Whether an address can be listened on, in the system's own words.

The servers say less, or too late: gRPC only that it did not work, mosquitto after somebody else has answered there.
"""

from __future__ import annotations

import os
import socket


class AddressRefused(Exception):
    """Nothing can listen there; the message names the setting and the reason, and says what to do."""


def check(key: str, host: str, port: int) -> None:
    """Return when `host`:`port` can be had for the setting `key`; port 0 asks for the host. Raises AddressRefused."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":
                # As the servers do: a connection of before that is closing does not hold the port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AddressRefused(
            f"{key}: cannot listen on {place}: {reason}; name another, or end what holds it"
        ) from error
