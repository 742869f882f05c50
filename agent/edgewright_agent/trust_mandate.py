"""Checks an offline mandate's documents with python-tuf's own classes; what they mean is decided in `trust`.

A mandate stands in for the director's metadata and for the image repository's timestamp and snapshot, whose lives of
days cannot last where there is no network. What takes their place:

  * Freshness is the mandate's own end, and the root must be within its life. Targets and the builder's list must have
    been within theirs when the mandate was issued: from then on the mandate vouches for them, by hash.
  * The hashes leave nothing to mix: the offline signers saw exactly these two documents.
  * Of root, targets and builder's list, the newest that the device has counts, its own or the mandate's: whoever was
    removed by what this device has seen since, a builder or a mandate's key, removed stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Targets
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edgewright_agent import trust, trust_round
from edgewright_agent.trust import MetadataStale, Reason, Repository, RoleMark, SignedTarget, TrustRefused
from edgewright_agent.trust_round import HeldFile
from edgewright_contract import mandate as contract
from edgewright_contract.mandate import Mandate, MandateError, Papers, Pinned
from edgewright_contract.targets import BUILDER

_IMAGE: Final = Repository.IMAGE


@dataclass(frozen=True)
class Checked:
    """An authentic mandate within its life: what it says and names, what the image repository says of that, the image
    repository's files that the device now has, and who speaks for each role."""

    mandate: Mandate
    targets: tuple[SignedTarget, ...]
    image: SignedTarget | None
    files: tuple[HeldFile, ...]
    roles: Mapping[tuple[Repository, str], RoleMark]


@dataclass(frozen=True)
class _List:
    """Targets metadata with the bytes that were signed."""

    read: Metadata[Targets]
    content: bytes

    @property
    def signed(self) -> Targets:
        return self.read.signed


def check(document: bytes, anchor: bytes, held: Sequence[HeldFile], reference: datetime) -> Checked:
    """Check a mandate's file. `anchor` and `held` are the device's, of the image repository; `held` without timestamp
    and snapshot does as well. Raises TrustRefused, MetadataStale.
    """
    try:
        papers = contract.parse(document)
        return _check(papers, anchor, held, reference)
    except MandateError as error:
        raise TrustRefused(Reason.MALFORMED, f"the mandate: {error}") from error
    except RepositoryError as error:
        raise TrustRefused(Reason.UNVERIFIED, f"the mandate: {error}") from error


def end_of(document: bytes) -> datetime:
    """When an accepted mandate ends. Of one that was not checked this says nothing."""
    read: Metadata[Targets] = Metadata.from_bytes(contract.parse(document).mandate)
    return read.signed.expires


def _check(papers: Papers, anchor: bytes, held: Sequence[HeldFile], reference: datetime) -> Checked:
    root, roots = _walk(papers, anchor, held)
    if root.is_expired(reference):
        raise MetadataStale(
            f"the mandate: the image repository's root ended on {root.expires:%Y-%m-%d}, and here it is"
            f" {reference:%Y-%m-%d}; bring a mandate that was made since"
        )
    offered = {"targets": _vouched(root, "targets", papers.targets)}
    newest = {"targets": _newer(offered["targets"], root, "targets", held)}
    judge = newest["targets"].signed
    signed = _vouched(judge, contract.ROLE, papers.mandate).signed
    offered[BUILDER] = _vouched(judge, BUILDER, papers.builder)
    newest[BUILDER] = _newer(offered[BUILDER], judge, BUILDER, held)
    mandate = contract.read(signed.unrecognized_fields)
    trust.check_life(mandate, signed.expires, reference)
    if signed.delegations is not None:
        raise TrustRefused(Reason.MALFORMED, "the mandate delegates; it may not")
    for role, pinned in zip(contract.PINNED, (mandate.targets, mandate.builder), strict=True):
        _check_pinned(role, offered[role], pinned, mandate)
    named = _targets(signed)
    listed = newest[BUILDER].signed.targets
    image = [SignedTarget(one.path, it.length, it.hashes, it.custom) for one in named if (it := listed.get(one.path))]
    speakers = {"targets": root.roles["targets"], BUILDER: _delegated(judge, BUILDER)}
    roles = {(_IMAGE, role): trust_round.mark(newest[role].signed.version, speakers[role]) for role in newest}
    roles[_IMAGE, Root.type] = RoleMark(root.version, "")
    lists = tuple(HeldFile(role, one.signed.version, one.content) for role, one in newest.items())
    return Checked(mandate, named, image[0] if image else None, (*roots, *lists), roles)


def _walk(papers: Papers, anchor: bytes, held: Sequence[HeldFile]) -> tuple[Root, tuple[HeldFile, ...]]:
    """The newest root, and the chain to it as far as it is above the anchor."""
    own = {file.version: file.content for file in held if file.role == Root.type}
    walked = TrustedMetadataSet(anchor, EnvelopeType.METADATA)
    chain = [HeldFile(Root.type, walked.root.version, anchor)]
    while True:
        following = walked.root.version + 1
        content = own.get(following)
        if content is None and following <= len(papers.roots):
            content = papers.roots[following - 1]
        if content is None:
            return walked.root, tuple(chain)
        walked.update_root(content)
        chain.append(HeldFile(Root.type, following, content))


def _vouched(judge: Root | Targets, role: str, content: bytes) -> _List:
    """Targets metadata that `judge` lets `role` sign. Raises TrustRefused, RepositoryError."""
    read: Metadata[Any] = Metadata.from_bytes(content)
    if not isinstance(read.signed, Targets):
        raise TrustRefused(Reason.UNVERIFIED, f"the mandate: {role} is metadata of another kind")
    if isinstance(judge, Targets):
        _delegated(judge, role)
    judge.verify_delegate(role, read.signed_bytes, read.signatures)
    return _List(read, content)


def _newer(offered: _List, judge: Root | Targets, role: str, held: Sequence[HeldFile]) -> _List:
    """What the device holds, where that is newer and still vouched for; else what is offered."""
    for file in held:
        if file.role == role and file.version > offered.signed.version:
            try:
                return _vouched(judge, role, file.content)
            except RepositoryError:
                continue  # of keys that speak for this role no more
    return offered


def _delegated(judge: Targets, role: str) -> Role:
    found = judge.delegations.roles.get(role) if judge.delegations and judge.delegations.roles else None
    if found is None:
        raise TrustRefused(Reason.UNVERIFIED, f"the image repository's targets know no role {role}")
    return found


def _check_pinned(role: str, offered: _List, pinned: Pinned, mandate: Mandate) -> None:
    if offered.signed.version != pinned.version:
        text = f"the mandate was made with {role} version {pinned.version}, not {offered.signed.version}"
        raise TrustRefused(Reason.UNVERIFIED, text)
    MetaFile(pinned.version, pinned.length, {"sha256": pinned.sha256}).verify_length_and_hashes(offered.content)
    if offered.signed.is_expired(mandate.issued):
        raise MetadataStale(
            f"the mandate was issued on {mandate.issued:%Y-%m-%d}, and its {role} ended on"
            f" {offered.signed.expires:%Y-%m-%d}; make it anew"
        )


def _targets(signed: Targets) -> tuple[SignedTarget, ...]:
    return tuple(SignedTarget(path, one.length, one.hashes, one.custom) for path, one in signed.targets.items())
