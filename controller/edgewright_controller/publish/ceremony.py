"""The ceremony, as acts on the two repositories: what stands, requests for what is to follow, and taking it up.

While the keys of the roots are online, the controller signs for itself; once holders have them, it can ask only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Targets

from edgewright_controller.director import Director
from edgewright_controller.publish import keys, signing_request
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.holders import Holder, HolderKeys
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.publish.signing_request import SigningRequest
from edgewright_controller.publish.succession import Standing, Wanted, successors

# What may be given another key, and how that role is called in its repository.
ROTATABLE: Final = ("snapshot", "timestamp", "director", "builder")


@dataclass(frozen=True)
class Repositories:
    """A fleet's two repositories, opened."""

    fleet: str
    image: ImageRepository
    director: Director

    def standing(self) -> Standing:
        """What stands now."""
        image = self.image
        return Standing(self.fleet, image.roots.newest, image.targets.data, self.director.roots.newest)

    def controller_as_holder(self) -> Holder:
        """The controller, for what it can sign of a request: nothing, once holders have the keys."""
        own: dict[str, Signer | None] = {
            "image-root": self.image.roots.signer(Root.type),
            "image-targets": self.image.roots.signer(Targets.type),
            "director-root": self.director.roots.signer(Root.type),
        }
        return Holder("controller", self.fleet, {duty: one for duty, one in own.items() if one is not None})


def request(
    repositories: Repositories,
    *,
    why: str,
    now: datetime,
    roles: Sequence[str] = (),
    holders: Sequence[HolderKeys] = (),
    threshold: int = 2,
) -> SigningRequest:
    """A request to renew everything offline, and beside that to give `roles` other keys, and duties to `holders`.

    Keys of roles that are online are made now; they speak once the request is published. Raises PublishError, OSError.
    """
    image, director = repositories.image, repositories.director
    unknown = [role for role in roles if role not in ROTATABLE]
    if unknown:
        raise PublishError(f"{unknown[0]!r} is no role with a key online; there are {', '.join(ROTATABLE)}")
    online = {
        role: keys.prepare(image.roots.key_file(role)).public_key for role in roles if role in ("snapshot", "timestamp")
    }
    director_key = keys.prepare(director.roots.key_file(Targets.type)).public_key if "director" in roles else None
    builder = image.next_builder() if "builder" in roles else None
    wanted = Wanted(holders, threshold, online, director_key, builder)
    made = successors(repositories.standing(), wanted, why=why, now=now)
    controller = repositories.controller_as_holder()
    return made.signed_by(controller)[0] if controller.signers else made


def publish(repositories: Repositories, signed: SigningRequest, now: datetime) -> None:
    """Take up what a complete request says. Done twice, it changes nothing the second time; cut off, it can be done
    again.

    Raises PublishError, then nothing was changed; OSError.
    """
    if signed.fleet != repositories.fleet:
        raise PublishError(f"the request is of fleet {signed.fleet!r}, this is {repositories.fleet!r}")
    signing_request.check(signed, now)
    if signed.missing:
        lacking = "; ".join(
            f"{change.subject}: {count.missing} more for {count.of}"
            for change in signed.changes
            for count in signed.counts(change)
            if count.missing
        )
        raise PublishError(f"signatures are missing ({lacking}); take it to more holders: edgewright keys sign")
    after = {change.subject: change.next for change in signed.changes}
    image, director = repositories.image, repositories.director
    if set(after) != {"image-root", "director-root", "image-targets"}:
        raise PublishError("the request has not all of image-root, director-root and image-targets")
    image.roots.follower(after["image-root"])
    director.roots.follower(after["director-root"])
    image.install(after["image-root"], after["image-targets"], now)
    director.roots.install(after["director-root"])


def forget_online_keys(repositories: Repositories) -> list[Path]:
    """Remove the files of keys that holders speak for now; the paths. Raises OSError."""
    removed = []
    for roots, roles in (
        (repositories.image.roots, (Root.type, Targets.type)),
        (repositories.director.roots, (Root.type,)),
    ):
        for role in roles:
            path = roots.key_file(role)
            if roots.signer(role) is None and path.exists():
                keys.remove(path)
                removed.append(path)
    mandate = repositories.image.roots.key_file(Root.type).with_name("image-mandate.pem")
    if repositories.image.roots.signer(Root.type) is None and mandate.exists():
        keys.remove(mandate)
        removed.append(mandate)
    return removed
