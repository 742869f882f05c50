"""What comes after the present roots and targets: other keys, or the same for longer. Pure; nothing is signed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Metadata, Role, Root, Targets

from edgewright_contract.mandate import PATHS
from edgewright_contract.mandate import ROLE as MANDATE
from edgewright_controller.publish import metadata
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.holders import HolderKeys, check_distinct, holder_of
from edgewright_controller.publish.image import TARGETS_LIFE
from edgewright_controller.publish.roots import LIFE as ROOT_LIFE
from edgewright_controller.publish.signing_request import Change, SigningRequest, new_change

DEFAULT_THRESHOLD: Final = 2


@dataclass(frozen=True)
class Standing:
    """What stands now, signed."""

    fleet: str
    image_root: bytes
    image_targets: bytes
    director_root: bytes


@dataclass(frozen=True)
class Wanted:
    """Who shall speak from now on. What is not named stays as it is.

    `holders` with `threshold`: for the offline duties. `online`: role of the image root ("snapshot", "timestamp") →
    its new key. `director`: the director's new online key. `builder`: the builder's.
    """

    holders: Sequence[HolderKeys] = ()
    threshold: int = DEFAULT_THRESHOLD
    online: Mapping[str, Key] = field(default_factory=dict)
    director: Key | None = None
    builder: Key | None = None


def successors(standing: Standing, wanted: Wanted, *, why: str, now: datetime) -> SigningRequest:
    """The request for all three documents, each one version on and good for its whole life.

    All three together, although one may be enough: then everything offline has the same end, and a ceremony renews all
    of it. Raises PublishError when the wish cannot be met.
    """
    if wanted.holders:
        check_distinct(wanted.holders, standing.fleet)
        if not 1 <= wanted.threshold <= len(wanted.holders):
            raise PublishError(f"{wanted.threshold} of {len(wanted.holders)} holders cannot sign; name more holders")
    image, director, targets = (
        Metadata.from_bytes(content).signed
        for content in (standing.image_root, standing.director_root, standing.image_targets)
    )
    if not (isinstance(image, Root) and isinstance(director, Root) and isinstance(targets, Targets)):
        raise PublishError("what stands is not two roots and a list of delegations")
    _next(image, ROOT_LIFE, now)
    _next(director, ROOT_LIFE, now)
    _next(targets, TARGETS_LIFE, now)
    for role, key in wanted.online.items():
        _speaks(image, role, [key], 1)
    if wanted.director is not None:
        for role in ("timestamp", "snapshot", "targets"):
            _speaks(director, role, [wanted.director], 1)
    if wanted.holders:
        _speaks(image, Root.type, _keys(wanted.holders, "image-root"), wanted.threshold)
        _speaks(image, Targets.type, _keys(wanted.holders, "image-targets"), wanted.threshold)
        _speaks(director, Root.type, _keys(wanted.holders, "director-root"), wanted.threshold)
        _delegates(targets, MANDATE, _keys(wanted.holders, "image-mandate"), wanted.threshold, PATHS)
    if wanted.builder is not None:
        paths = _role(targets, "builder").paths or []
        _delegates(targets, "builder", [wanted.builder], 1, paths)
    changes: tuple[Change, ...] = (
        new_change("image-root", standing.image_root, image),
        new_change("director-root", standing.director_root, director),
        new_change("image-targets", standing.image_targets, targets),
    )
    return SigningRequest(standing.fleet, why, changes)


def _next(signed: Root | Targets, life: timedelta, now: datetime) -> None:
    signed.version += 1
    signed.expires = metadata.end(now, life)


def _keys(holders: Sequence[HolderKeys], duty: str) -> list[Key]:
    try:
        return [holder.keys[duty] for holder in holders]
    except KeyError as error:
        raise PublishError(f"a holder has no key for {duty}; make its file anew") from error


def _speaks(root: Root, role: str, keys: Sequence[Key], threshold: int) -> None:
    root.roles[role] = Role([key.keyid for key in keys], threshold)
    root.keys.update({key.keyid: key for key in keys})
    used = {keyid for one in root.roles.values() for keyid in one.keyids}
    root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}


def _role(targets: Targets, name: str) -> DelegatedRole:
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    if name not in roles:
        raise PublishError(f"the image repository's targets delegate to no role {name}")
    return roles[name]


def _delegates(targets: Targets, name: str, keys: Sequence[Key], threshold: int, paths: Sequence[str]) -> None:
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise PublishError("the image repository's targets delegate to nobody")
    role = DelegatedRole(name, [key.keyid for key in keys], threshold, terminating=True, paths=list(paths))
    delegations.roles[name] = role
    delegations.keys.update({key.keyid: key for key in keys})
    used = {keyid for one in delegations.roles.values() for keyid in one.keyids}
    delegations.keys = {keyid: key for keyid, key in delegations.keys.items() if keyid in used}


def changed_holders(standing: Standing, coming: Sequence[HolderKeys], leaving: Sequence[str]) -> list[HolderKeys]:
    """Who holds the offline duties after these come and those leave. Raises PublishError."""
    present = present_holders(standing)
    unknown = [name for name in leaving if name not in present]
    if unknown:
        raise PublishError(f"{unknown[0]} is no holder; there are {', '.join(sorted(present)) or 'none'}")
    return [holder for name, holder in present.items() if name not in leaving] + list(coming)


def present_threshold(standing: Standing) -> int:
    """How many holders must sign now; the usual number while there are none."""
    image = _root(standing.image_root)
    role = image.roles[Root.type]
    return role.threshold if any(holder_of(image.keys[keyid]) for keyid in role.keyids) else DEFAULT_THRESHOLD


def present_holders(standing: Standing) -> dict[str, HolderKeys]:
    """The holders whom the signed metadata names."""
    image, director = (_root(content) for content in (standing.image_root, standing.director_root))
    listing: Metadata[Targets] = Metadata.from_bytes(standing.image_targets)
    listed: dict[str, tuple[Role, Mapping[str, Key]]] = {
        "image-root": (image.roles[Root.type], image.keys),
        "image-targets": (image.roles[Targets.type], image.keys),
        "director-root": (director.roles[Root.type], director.keys),
    }
    delegations = listing.signed.delegations
    if delegations is not None and delegations.roles and MANDATE in delegations.roles:
        listed["image-mandate"] = (delegations.roles[MANDATE], delegations.keys)
    held: dict[str, dict[str, Key]] = {}
    for duty, (role, keys) in listed.items():
        for keyid in role.keyids:
            key = keys[keyid]
            if name := holder_of(key):
                held.setdefault(name, {})[duty] = key
    return {name: HolderKeys(name, standing.fleet, keys) for name, keys in held.items()}


def _root(content: bytes) -> Root:
    read: Metadata[Root] = Metadata.from_bytes(content)
    return read.signed
