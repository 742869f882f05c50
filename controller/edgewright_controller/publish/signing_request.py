"""A signing request: new root and targets metadata on their way from holder to holder, in one file.

The file has what stands now beside what shall stand, so that a holder, on a machine without a network, can see what
would change before signing it, and count who has signed. It is complete when every document has the signatures that
the metadata before it asks for, and those that it asks for itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Targets, VerificationResult
from tuf.api.serialization import DeserializationError

from edgewright_contract.mandate import ROLE as MANDATE
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.holders import Holder, holder_of
from edgewright_controller.publish.image import TARGETS_LIFE
from edgewright_controller.publish.roots import LIFE as ROOT_LIFE

FORMAT: Final = "edgewright-signing-request-1"
MAX_BYTES: Final = 4 << 20
# What may be signed anew, in the order in which it is put in place: the roots say who may sign the rest.
SUBJECTS: Final = ("image-root", "director-root", "image-targets")
# What holders see of a key. Whoever wants another key with the same must make 2**64 of them.
_SHOWN: Final = 16
_LIVES: Final = {"image-root": ROOT_LIFE, "director-root": ROOT_LIFE, "image-targets": TARGETS_LIFE}


@dataclass(frozen=True)
class Change:
    """One document: what stands now (signed), and what shall stand, with the signatures that it has so far."""

    subject: str
    now: bytes
    next: bytes

    @property
    def current(self) -> Any:
        """What stands, parsed: Root or Targets."""
        return Metadata.from_bytes(self.now).signed

    @property
    def proposed(self) -> Any:
        """What shall stand, parsed: Root or Targets."""
        return Metadata.from_bytes(self.next).signed


@dataclass(frozen=True)
class Count:
    """How far one set of keys has signed a document: `of` is what is asked ("the present root", "the new root")."""

    of: str
    missing: int
    signed: tuple[Key, ...]
    unsigned: tuple[Key, ...]


@dataclass(frozen=True)
class SigningRequest:
    """A fleet's request. `why` is the requester's own word; nothing hangs on it."""

    fleet: str
    why: str
    changes: tuple[Change, ...]

    @property
    def missing(self) -> int:
        """How many more signatures it needs at least; 0: it may be published."""
        return sum(count.missing for change in self.changes for count in self.counts(change))

    @property
    def more_holders(self) -> int:
        """How many more holders must sign at least."""
        return max((count.missing for change in self.changes for count in self.counts(change)), default=0)

    def counts(self, change: Change) -> tuple[Count, ...]:
        """Who has signed a document and who may, by each set of keys that must."""
        read: Metadata[Any] = Metadata.from_bytes(change.next)
        if isinstance(read.signed, Root):
            before = change.current.get_verification_result(Root.type, read.signed_bytes, read.signatures)
            after = read.signed.get_verification_result(Root.type, read.signed_bytes, read.signatures)
            return _count("the present root", before), _count("the new root", after)
        judge = self._judge()
        result = judge.get_verification_result(Targets.type, read.signed_bytes, read.signatures)
        return (_count("the image repository's root", result),)

    def signed_by(self, holder: Holder) -> tuple[SigningRequest, int]:
        """The request with all signatures that this holder can add, and how many there are of its own now.

        Raises PublishError when the holder is of another fleet, or none of its keys is asked for.
        """
        if holder.fleet != self.fleet:
            raise PublishError(f"the request is of fleet {self.fleet!r}, and the keys are of fleet {holder.fleet!r}")
        own = {signer.public_key.keyid: signer for signer in holder.signers.values()}
        changes, signatures = [], 0
        for change in self.changes:
            asked = {key.keyid for count in self.counts(change) for key in (*count.signed, *count.unsigned)}
            read: Metadata[Any] = Metadata.from_bytes(change.next)
            for keyid in sorted(asked & own.keys()):
                read.sign(own[keyid], append=True)
                signatures += 1
            changes.append(replace(change, next=read.to_bytes()))
        if not signatures:
            raise PublishError(f"no key of {holder.name} is asked for in this request")
        return replace(self, changes=tuple(changes)), signatures

    def _judge(self) -> Root:
        """The image root that the new targets will stand under: the new one, if the request has one."""
        for change in self.changes:
            if change.subject == "image-root":
                proposed: Root = change.proposed
                return proposed
        raise PublishError("a request for the image repository's targets goes with its root")

    def encode(self) -> bytes:
        """The request's file."""
        listed = [
            {"subject": one.subject, "now": json.loads(one.now), "next": json.loads(one.next)} for one in self.changes
        ]
        document = {"format": FORMAT, "fleet": self.fleet, "why": self.why, "changes": listed}
        return json.dumps(document, indent=1).encode() + b"\n"


def decode(content: bytes) -> SigningRequest:
    """The request in a file, each document well formed and one version above what stands. Raises PublishError."""
    if len(content) > MAX_BYTES:
        raise PublishError(f"a signing request of {len(content)} bytes; at most {MAX_BYTES}")
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise PublishError(f"a signing request of format {document['format']!r}; this version reads {FORMAT}")
        changes = tuple(_change(one) for one in document["changes"])
        request = SigningRequest(str(document["fleet"]), str(document["why"]), changes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PublishError(f"not a signing request: {error!r}") from error
    except (RepositoryError, DeserializationError) as error:
        raise PublishError(f"not a signing request: {error}") from error
    if [one.subject for one in changes] != [one for one in SUBJECTS if one in {each.subject for each in changes}]:
        raise PublishError("the documents of a signing request are out of order, or there more than once")
    for change in changes:
        request.counts(change)
    return request


def check(request: SigningRequest, now: datetime) -> None:
    """Raise PublishError for a request that no honest controller makes, before anybody signs it.

    What stands must vouch for itself, so that the differences which a holder is shown are real. And only keys, numbers
    of signatures and ends may change: no artifact, no path of a delegation, no other field.
    """
    standing = {change.subject: change for change in request.changes}
    for change in request.changes:
        then, most = change.proposed, _LIVES[change.subject]
        if then.expires > now + most + timedelta(days=1):
            raise PublishError(
                f"{change.subject}: it would be good until {then.expires:%Y-%m-%d}; at most {most.days} days are signed"
            )
        if _without_keys(change.current) != _without_keys(then):
            raise PublishError(f"{change.subject}: it changes more than keys, their number and its end; do not sign it")
        for signed in (change.current, then):
            _check_keys(change.subject, signed)
        _check_speakers(change)
        judge = standing.get("image-root", change) if change.subject == "image-targets" else change
        read: Metadata[Any] = Metadata.from_bytes(change.now)
        role = Targets.type if change.subject == "image-targets" else Root.type
        try:
            judge.current.verify_delegate(role, read.signed_bytes, read.signatures)
        except (RepositoryError, ValueError) as error:
            raise PublishError(f"{change.subject}: what stands now, by this request, nobody has signed") from error


def _check_keys(subject: str, signed: Any) -> None:
    """A key's id is what holders are shown of it, so no other key may go by that id."""
    keys = signed.keys if isinstance(signed, Root) else _delegated(signed)[1]
    for keyid, key in keys.items():
        canonical = encode_canonical({"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}) or ""
        if hashlib.sha256(canonical.encode()).hexdigest() != keyid:
            raise PublishError(f"{subject}: a key goes by {keyid[:_SHOWN]!r}, which is not its id; do not sign it")


def _check_speakers(change: Change) -> None:
    """What holders sign stays with holders, two of whom sign; what is signed online stays with one key that is."""
    (before, _), (after, keys) = (_roles(signed) for signed in (change.current, change.proposed))
    known = _roles(change.current)[1]
    for name, role in after.items():
        was = before.get(name)
        if was is None:
            continue
        held = [holder_of(keys[keyid]) for keyid in role.keyids]
        if any(holder_of(known[keyid]) for keyid in was.keyids):
            if not all(held) or len(set(held)) != len(held):
                raise PublishError(f"{change.subject}: {name} would be with keys of nobody, or two of one holder")
            if role.threshold < min(was.threshold, 2):
                raise PublishError(f"{change.subject}: {role.threshold} holder alone would sign {name}; do not sign it")
        elif name not in (Root.type, Targets.type, MANDATE) and (any(held) or len(held) != 1):
            raise PublishError(f"{change.subject}: {name} signs online with one key, and would not any more")


def _roles(signed: Any) -> tuple[Mapping[str, Any], Mapping[str, Key]]:
    return (signed.roles, signed.keys) if isinstance(signed, Root) else _delegated(signed)


def _without_keys(signed: Any) -> dict[str, Any]:
    """All that a document says besides who may speak, its version and its end."""
    document: dict[str, Any] = signed.to_dict()
    for name in ("version", "expires", "keys", "roles"):
        document.pop(name, None)
    delegations = document.pop("delegations", None) or {}
    document["delegated"] = [
        json.dumps({name: value for name, value in role.items() if name not in ("keyids", "threshold")}, sort_keys=True)
        for role in delegations.get("roles", ())
    ]
    if isinstance(signed, Root):
        document["roles"] = sorted(signed.roles)
    return document


def collected(requests: Iterable[SigningRequest]) -> SigningRequest:
    """Copies that several holders signed apart, as one request. Raises PublishError when they are not copies."""
    first, *others = requests
    for other in others:
        if [_bare(one) for one in other.changes] != [_bare(one) for one in first.changes]:
            raise PublishError("these are not copies of one request: they would sign different things")
        merged = []
        for mine, theirs in zip(first.changes, other.changes, strict=True):
            into: Metadata[Any] = Metadata.from_bytes(mine.next)
            into.signatures.update(Metadata.from_bytes(theirs.next).signatures)
            merged.append(replace(mine, next=into.to_bytes()))
        first = replace(first, changes=tuple(merged))
    return first


def new_change(subject: str, now: bytes, proposed: Signed) -> Change:
    """A document that nobody has signed yet."""
    made: Metadata[Any] = Metadata(proposed)
    return Change(subject, now, made.to_bytes())


def _bare(change: Change) -> tuple[str, bytes, bytes]:
    return change.subject, change.now, Metadata.from_bytes(change.next).signed_bytes


def _change(listed: Mapping[str, Any]) -> Change:
    subject = listed["subject"]
    if subject not in SUBJECTS:
        raise PublishError(f"{subject!r} is nothing that holders sign")
    kind = Targets if subject == "image-targets" else Root
    read = {name: Metadata.from_dict(dict(listed[name])) for name in ("now", "next")}
    if not all(isinstance(one.signed, kind) for one in read.values()):
        raise PublishError(f"{subject}: it is metadata of another role")
    before, after = read["now"].signed.version, read["next"].signed.version
    if after != before + 1:
        raise PublishError(f"{subject}: version {after} does not follow version {before}")
    for one in read.values():
        roles, keys = _roles(one.signed)
        for name, role in roles.items():
            if lost := [keyid for keyid in role.keyids if keyid not in keys]:  # TUF only counts it as unsigned
                raise PublishError(f"{subject}: {name} is with a key {lost[0][:_SHOWN]!r} that it does not hold")
    return Change(subject, read["now"].to_bytes(), read["next"].to_bytes())


def _count(of: str, result: VerificationResult) -> Count:
    signed, unsigned = tuple(result.signed.values()), tuple(result.unsigned.values())
    return Count(of, result.missing, signed, unsigned)


def describe(request: SigningRequest) -> list[str]:
    """What a holder must know before signing, line by line: what changes against what stands, and who has signed.

    A stranger's words in it move no cursor and hide no line.
    """
    return ["".join(sign if sign.isprintable() else "?" for sign in line) for line in _described(request)]


def _described(request: SigningRequest) -> list[str]:
    lines = [f"fleet {request.fleet}: {request.why}"]
    for change in request.changes:
        now, then = change.current, change.proposed
        lines.append(
            f"{change.subject}: version {now.version} → {then.version}, good until {then.expires:%Y-%m-%d}"
            f" (now {now.expires:%Y-%m-%d})"
        )
        lines += [f"  {line}" for line in _differences(now, then)]
        for count in request.counts(change):
            asked = ", ".join(sorted(_words(key) for key in count.unsigned)) or "nobody"
            signed = ", ".join(sorted(_words(key) for key in count.signed)) or "nobody"
            lines.append(f"  by {count.of}: signed by {signed}; {count.missing} more of {asked}")
    return lines


def _differences(now: Any, then: Any) -> list[str]:
    before, after = _speakers(now), _speakers(then)
    lines = []
    for role in sorted(before.keys() | after.keys()):
        if before.get(role) != after.get(role):
            lines.append(f"{role}: {_speaker(before.get(role))} → {_speaker(after.get(role))}")
        else:  # said too: a forged account of what stands shows no change, but it has to show its keys
            lines.append(f"{role}: stays with {_speaker(after[role])}")
    return lines


Speaker = tuple[int, tuple[str, ...]]


def _speakers(signed: Any) -> dict[str, Speaker]:
    """Role → threshold and keys, in words."""
    roles, keys = _roles(signed)
    return {
        name: (role.threshold, tuple(sorted(_words(keys[keyid]) for keyid in role.keyids)))
        for name, role in roles.items()
    }


def _delegated(targets: Targets) -> tuple[Mapping[str, Any], Mapping[str, Key]]:
    known = targets.delegations
    return ((known.roles or {}), known.keys) if known is not None else ({}, {})


def _speaker(speaker: Speaker | None) -> str:
    if speaker is None:
        return "nobody"
    threshold, keys = speaker
    return f"{threshold} of {', '.join(keys)}" if len(keys) > 1 or threshold > 1 else keys[0]


def _words(key: Key) -> str:
    name = holder_of(key)
    return f"{name} ({key.keyid[:_SHOWN]})" if name else key.keyid[:_SHOWN]
