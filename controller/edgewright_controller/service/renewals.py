"""What the controller itself signs and issues anew before it expires, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from edgewright_controller import log
from edgewright_controller.director import Director
from edgewright_controller.pki import Authority
from edgewright_controller.publish import key_status
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.service.servers import ServerCertificate

_log = log.of(__name__)

Renewal = Callable[[datetime], object]


class Reloads(Protocol):
    """The broker, which reads its certificate at its start."""

    def reload(self) -> None:
        """Read it again."""


def renewals(
    *,
    image: ImageRepository,
    director: Director,
    authority: Authority,
    certificate: ServerCertificate,
    hosts: tuple[str, ...],
    broker: Reloads | None,
    state: Path,
) -> Mapping[str, Renewal]:
    """Each does nothing while what it renews is fresh. They raise PublishError, AuthorityError, OSError.

    `state` is the controller's folder.
    """
    served = [authority.server_certificate(hosts).chain.read_bytes()]

    def server(now: datetime) -> None:
        pair = authority.server_certificate(hosts, now)
        chain = pair.chain.read_bytes()
        if chain != served[0]:
            certificate.replace(pair)
            if broker is not None:
                broker.reload()
            served[0] = chain

    def offline_keys(now: datetime) -> None:
        for row in key_status.rows(key_status.Look.read(state), now):
            if row.warning:
                _log.warning("something that people sign needs them", role=row.role, what=row.warning)

    return {
        "what people sign": offline_keys,
        "image repository": image.refresh,
        "director": director.refresh,
        "server certificate": server,
        # Read from its file at each connection to the broker.
        "certificate of the broker's client": lambda now: authority.service_client_certificate(now=now),
        "operator's certificate": lambda now: authority.operator_certificate(folder=state / "operator", now=now),
    }
