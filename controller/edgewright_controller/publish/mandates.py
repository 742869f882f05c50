"""Offline mandates: drawn up by the controller, signed by whoever holds the offline key, checked by both.

A mandate without its signatures is the request to sign it, in the same file, so nothing is put together afterwards:
each holder of a key adds a signature, and when there are enough, the file is the mandate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from edgewright_contract import digest
from edgewright_contract import mandate as contract
from edgewright_contract import release as releases
from edgewright_contract.mandate import Mandate, MandateError, Papers, Pinned
from edgewright_contract.release import Release, ReleaseError
from edgewright_contract.targets import BUILDER, ImageTarget
from edgewright_controller.publish import metadata
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.image import Documents


@dataclass(frozen=True)
class Terms:
    """What a mandate is to say. Exactly one of `device` and `profile`; `number` is the fleet's count of mandates."""

    fleet: str
    device: str | None
    profile: str | None
    number: int
    generation: int
    release: Release
    target: ImageTarget
    issued: datetime
    expires: datetime


@dataclass(frozen=True)
class Reading:
    """What a mandate's file says and how far it is signed. `missing`: how many more signatures it needs, by keys out of
    `unsigned` (key ids). `first_root`: sha256 of the root that everything in it hangs from."""

    mandate: Mandate
    number: int
    expires: datetime
    release: Release
    missing: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    first_root: str


def draw_up(documents: Documents, terms: Terms) -> bytes:
    """The file, unsigned. Raises PublishError when no device would believe it once it is signed."""
    root, targets, builder = _read(documents.roots[-1]), _read(documents.targets), _read(documents.builder)
    most = contract.MAX_LIFE
    if not terms.issued < terms.expires <= terms.issued + most:
        raise PublishError(f"a mandate is valid for more than nothing and at most {most.days} days")
    if terms.expires > root.expires:
        left = (root.expires - terms.issued).days
        raise PublishError(
            f"the image repository's root ends on {root.expires:%Y-%m-%d}: give at most {max(left, 0)} days, or renew"
            " the root first: edgewright keys status"
        )
    _delegated(targets)
    for role, one in (("targets", targets), (BUILDER, builder)):
        if one.is_expired(terms.issued):
            text = f"the image repository's {role} ended on {one.expires:%Y-%m-%d}; renew it: edgewright keys status"
            raise PublishError(text)
    if builder.targets.get(terms.target.path) != metadata.target_file(terms.target, terms.target.custom):
        raise PublishError(f"{terms.target.path} is not published as it stands in the ledger; apply its manifest again")
    pinned = [
        Pinned(one.version, len(data), digest.of_bytes(data))
        for one, data in ((targets, documents.targets), (builder, documents.builder))
    ]
    custom = {"hw_class": terms.target.hw_class, "release": terms.release.to_json()}
    try:
        said = Mandate(
            terms.fleet, terms.device, terms.profile, terms.generation, terms.issued.replace(microsecond=0), *pinned
        )
        signed = Targets(
            terms.number,
            expires=terms.expires.replace(microsecond=0),
            targets={terms.target.path: metadata.target_file(terms.target, custom)},
            unrecognized_fields=said.fields,
        )
        made = metadata.sign(signed).data
        return Papers(made, documents.roots, documents.targets, documents.builder).encode()
    except MandateError as error:
        raise PublishError(f"this mandate cannot be made: {error}") from error


def read(document: bytes) -> Reading:
    """What a file says, once everything but its own signatures is checked. Raises PublishError."""
    try:
        papers = contract.parse(document)
        targets = _checked_targets(papers)
        signed: Metadata[Targets] = Metadata.from_bytes(papers.mandate)
        if not isinstance(signed.signed, Targets) or len(signed.signed.targets) != 1:
            raise PublishError("not a mandate: it names other than one artifact")
        said = contract.read(signed.signed.unrecognized_fields)
        (named,) = signed.signed.targets.values()
        release = releases.from_json(named.custom["release"])
        counted = targets.get_verification_result(contract.ROLE, signed.signed_bytes, signed.signatures)
    except (MandateError, ReleaseError, RepositoryError, KeyError, TypeError, ValueError) as error:
        raise PublishError(f"not a mandate: {error}") from error
    return Reading(
        mandate=said,
        number=signed.signed.version,
        expires=signed.signed.expires,
        release=release,
        missing=counted.missing,
        signed=tuple(sorted(counted.signed)),
        unsigned=tuple(sorted(counted.unsigned)),
        first_root=digest.of_bytes(papers.roots[0]),
    )


def sign(document: bytes, signer: Signer) -> bytes:
    """The file with one more signature. Raises PublishError when it holds together no more, or the key is not one of
    those that sign mandates."""
    reading = read(document)
    keyid = signer.public_key.keyid
    if keyid not in (*reading.unsigned, *reading.signed):
        asked = ", ".join(key[:12] for key in (*reading.unsigned, *reading.signed))
        raise PublishError(f"the key {keyid[:12]} does not sign mandates of this fleet; these do: {asked}")
    papers = contract.parse(document)
    signed: Metadata[Targets] = Metadata.from_bytes(papers.mandate)
    signed.sign(signer, append=True)
    return Papers(signed.to_bytes(), papers.roots, papers.targets, papers.builder).encode()


def _checked_targets(papers: Papers) -> Targets:
    """The image repository's targets, when everything from the first root to the pinned lists holds together."""
    above: Root | None = None
    for number, content in enumerate(papers.roots, start=1):
        root: Metadata[Root] = Metadata.from_bytes(content)
        if not isinstance(root.signed, Root) or root.signed.version != number:
            raise PublishError(f"the mandate's root {number} is not that")
        for judge in (above or root.signed, root.signed):
            judge.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        above = root.signed
    assert above is not None  # a file has a root
    targets: Metadata[Targets] = Metadata.from_bytes(papers.targets)
    above.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
    builder: Metadata[Targets] = Metadata.from_bytes(papers.builder)
    targets.signed.verify_delegate(BUILDER, builder.signed_bytes, builder.signatures)
    _delegated(targets.signed)
    mandate: Metadata[Any] = Metadata.from_bytes(papers.mandate)
    said = contract.read(mandate.signed.unrecognized_fields)
    for what, content, pinned in (("targets", papers.targets, said.targets), (BUILDER, papers.builder, said.builder)):
        if (len(content), digest.of_bytes(content)) != (pinned.length, pinned.sha256):
            raise PublishError(f"the mandate was made with another {what} than the one in its file")
    return targets.signed


def _read(content: bytes) -> Any:
    return Metadata.from_bytes(content).signed


def _delegated(targets: Targets) -> None:
    known = targets.delegations.roles if targets.delegations else None
    if contract.ROLE not in (known or {}):
        raise PublishError(
            "this fleet's image repository names no key that signs mandates; the next ceremony can add one:"
            " edgewright keys rotate"
        )
