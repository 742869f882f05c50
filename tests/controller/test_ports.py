"""An address that cannot be listened on is named with its setting and the system's reason."""

from __future__ import annotations

import socket

import pytest

from edgewright_controller import ports


def test_a_free_port_passes_and_stays_free() -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    for _ in range(2):
        ports.check("listen.grpc", "127.0.0.1", port)


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ports.AddressRefused, match=f"^listen.mqtt: cannot listen on 127.0.0.1:{port}: address"):
            ports.check("listen.mqtt", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_one_is_refused(host: str) -> None:
    with pytest.raises(ports.AddressRefused, match=rf"^listen.grpc: cannot listen on {host}:0: "):
        ports.check("listen.grpc", host, 0)
