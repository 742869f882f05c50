"""A fleet that gives out offline mandates, for the tests of a device's trust."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets

from edgewright_contract import mandate as contract
from edgewright_controller.publish import ImageRepository, mandates
from edgewright_controller.publish.mandates import Terms
from tests.agent.trust_fleet import DAY, NOW, Fleet, release
from tests.controller.signed_things import target


def delegate(image: ImageRepository, *signers: CryptoSigner, threshold: int = 1, now: datetime) -> None:
    """Let these keys sign mandates from now on, and no others, without any nobody: new targets of the repository."""
    targets: Metadata[Targets] = Metadata.from_bytes(image.documents().targets)
    before = targets.signed.delegations
    assert before is not None
    assert before.roles is not None
    roles = {name: role for name, role in before.roles.items() if name != contract.ROLE}
    used = {keyid for role in roles.values() for keyid in role.keyids}
    keys = {keyid: key for keyid, key in before.keys.items() if keyid in used}
    keys |= {signer.public_key.keyid: signer.public_key for signer in signers}
    ids = [signer.public_key.keyid for signer in signers]
    paths = list(contract.PATHS)
    if signers:
        roles[contract.ROLE] = DelegatedRole(contract.ROLE, ids, threshold, terminating=True, paths=paths)
    signed = image._signed_targets(Delegations(keys, roles), targets.signed.version + 1, now)
    image._advance(now, targets=signed)


class MandateFleet(Fleet):
    """A fleet whose image repository delegates the role `mandate` to a key that is in nobody's folder."""

    def __init__(self, folder: Path, fleet: str = "demo", now: datetime = NOW):
        super().__init__(folder, fleet, now)
        self.fleet = fleet
        self.mandate_key = CryptoSigner.generate_ed25519()
        self.delegate(self.mandate_key)

    def delegate(self, *signers: CryptoSigner, threshold: int = 1) -> None:
        """Let these keys sign mandates from now on, and no others."""
        delegate(self.image, *signers, threshold=threshold, now=NOW)

    def request(
        self,
        mark: str,
        generation: int,
        *,
        device: str | None = "jetson-01",
        profile: str | None = None,
        issued: datetime = NOW,
        days: int = 90,
    ) -> bytes:
        """A mandate that nobody has signed yet."""
        terms = Terms(
            fleet=self.fleet,
            device=None if profile else device,
            profile=profile,
            number=generation,
            generation=generation,
            release=release(mark),
            target=target(mark),
            issued=issued,
            expires=issued + days * DAY,
        )
        return mandates.draw_up(self.image.documents(), terms)

    def mandate(self, mark: str, generation: int, *, signer: CryptoSigner | None = None, **how: Any) -> bytes:
        """A signed mandate."""
        return mandates.sign(self.request(mark, generation, **how), signer or self.mandate_key)


def altered(document: bytes, signer: CryptoSigner | None, **changes: Any) -> bytes:
    """The mandate with some of what it says changed: `fields`, `expires`, `targets`… Signed anew by `signer`, or
    with the signatures that it had."""
    papers = contract.parse(document)
    read: Metadata[Targets] = Metadata.from_bytes(papers.mandate)
    for name, value in changes.items():
        if name == "fields":
            read.signed.unrecognized_fields.update(value)
            read.signed.unrecognized_fields = {
                key: one for key, one in read.signed.unrecognized_fields.items() if one is not None
            }
        else:
            setattr(read.signed, name, value)
    if signer is not None:
        read.signatures.clear()
        read.sign(signer)
    return replace(papers, mandate=read.to_bytes()).encode()


def days(number: float) -> timedelta:
    """So many days."""
    return number * DAY
