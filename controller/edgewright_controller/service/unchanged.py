"""The check-in of a device to which nothing happened: nearly all of a fleet's check-ins, answered from one row.

Such a device tells nothing that is not stored, and holds all that is signed for it. Its answer needs a few numbers and
no document, so neither the release nor the signed metadata is read. Whatever is not plainly so goes the long way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.director import ageing

if TYPE_CHECKING:
    from edgewright_controller.director import Director
    from edgewright_controller.ledger import Ledger
    from edgewright_controller.publish.image import ImageRepository

# Devices whose metadata is known to say what their generation wants; about 200 bytes each.
MAX_KNOWN: Final = 200_000

_ROW: Final = """
SELECT d.inventory_digest, d.status_sequence,
    coalesce((SELECT max(generation) FROM desired WHERE device = d.id), 0),
    m.version, m.expires_ms,
    EXISTS (SELECT 1 FROM requests WHERE device = d.id AND state = 'open'),
    coalesce((SELECT seq FROM watermarks WHERE device = d.id AND spool_epoch = ?2), 0)
FROM devices d JOIN director_metadata m ON m.device = d.id WHERE d.id = ?1
"""


@dataclass(frozen=True)
class Glance:
    """What the ledger has of a device for which something was signed."""

    inventory_digest: str
    status_sequence: int
    generation: int
    version: int
    expires: datetime
    asked: bool
    stored_sequence: int


class Unchanged:
    """Recognises such a device. `agree` tells it what a check-in that went the long way came to."""

    def __init__(self, ledger: Ledger, image: ImageRepository, director: Director) -> None:
        self._ledger, self._image, self._director = ledger, image, director
        # Device → (generation, version of the metadata that says what it wants). Both only rise, and what each of them
        # says never changes, so an entry is never wrong, only old.
        self._agreeing: dict[str, tuple[int, int]] = {}

    def agree(self, device: str, generation: int, version: int) -> None:
        """The director's metadata of `version` says what `generation` wants."""
        self._agreeing.pop(device, None)
        while len(self._agreeing) >= MAX_KNOWN:
            del self._agreeing[next(iter(self._agreeing))]
        self._agreeing[device] = (generation, version)

    def glance(self, device: str, request: agent_pb2.CheckInRequest, now: datetime) -> Glance | None:
        """What to answer by, when nothing happened to `device`; None: look closer. Raises LedgerError."""
        if device not in self._agreeing or _brings(request):
            return None
        row = self._ledger.glance(_ROW, (device, request.spool_epoch))
        if row is None:
            return None
        inventory_digest, sequence, generation, version, expires_ms, asked, stored = row
        expires = datetime.fromtimestamp(expires_ms / 1000, timezone.utc)
        known = Glance(inventory_digest, sequence, generation, version, expires, bool(asked), stored)
        return known if self._still(device, known, request, now) else None

    def _still(self, device: str, known: Glance, request: agent_pb2.CheckInRequest, now: datetime) -> bool:
        status = request.status
        if known.asked or status.sequence > known.status_sequence or status.generation > known.generation:
            return False
        if request.spool_settled > known.stored_sequence and request.spool_epoch:
            return False
        if self._agreeing[device] != (known.generation, known.version) or ageing(known.expires, now):
            return False
        image = held(request, agent_pb2.REPOSITORY_IMAGE)
        director = held(request, agent_pb2.REPOSITORY_DIRECTOR)
        return self._director.has_all(known.version, director) and not self._image.files(image)


def held(request: agent_pb2.CheckInRequest, repository: agent_pb2.Repository) -> Mapping[str, int]:
    """Role → version that the device holds of a repository."""
    return {one.role: one.version for one in request.held if one.repository == repository}


def _brings(request: agent_pb2.CheckInRequest) -> bool:
    return request.HasField("inventory") or bool(request.results)
