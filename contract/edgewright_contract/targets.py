"""Where artifacts stand in the two TUF repositories, and what is signed about them.

Image repository (what may exist): one target for each artifact and hardware class, in the delegated role
BUILDER. Director (who gets what): the same path, length and sha256, in targets metadata made for one
device. The target file is the bundle, so the target's sha256 is the artifact's identity.

`custom` of an image target:

    {"kind": "model", "hw_class": "gguf-cuda", "runtime": "gguf", "release_epoch": 0,
     "block_index": {"sha256": "…", "length": 123}, "provenance": "…"}

`provenance`, which may be absent, is the sha256 of an in-toto statement that says how the artifact was made.

`custom` of a director target: {"hw_class": "gguf-cuda", "release": {…}} (release.py). The signed part of
a director's targets carries DIRECTOR_KEYS beside what TUF defines. Unknown keys of `custom` are left alone: a newer
controller may say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgewright_contract import digest
from edgewright_contract.block_index import MAX_INDEX_BYTES
from edgewright_contract.bundle import MAX_BUNDLE_BYTES

BUILDER: Final = "builder"
KINDS: Final = ("model", "engine", "agent")
FOLDERS: Final = {"model": "models", "engine": "engines", "agent": "agents"}
DIRECTOR_KEYS: Final = ("device_id", "fleet", "generation")


class TargetError(ValueError):
    """Signed target information that is not of this format."""


@dataclass(frozen=True)
class ImageTarget:
    """What the image repository says of one artifact for one hardware class."""

    kind: str
    name: str  # the model's id, or the engine's
    hw_class: str
    runtime: str
    bundle: str  # sha256
    bundle_length: int  # bytes of the bundle document
    block_index: str  # sha256
    block_index_length: int
    release_epoch: int = 0
    provenance: str = ""  # sha256 of its statement; empty: there is none

    @property
    def path(self) -> str:
        """The target's path in both repositories."""
        return f"{FOLDERS[self.kind]}/{self.name}/{self.hw_class}/{self.bundle}.bundle"

    @property
    def custom(self) -> dict[str, Any]:
        """The signed `custom` object of the image target."""
        return {
            "kind": self.kind,
            "hw_class": self.hw_class,
            "runtime": self.runtime,
            "release_epoch": self.release_epoch,
            "block_index": {"sha256": self.block_index, "length": self.block_index_length},
            **({"provenance": self.provenance} if self.provenance else {}),
        }


def parse(path: str, length: int, hashes: Mapping[str, str], custom: Any) -> ImageTarget:
    """An image target as TUF's metadata has it. Raises TargetError."""
    try:
        folder, name, hw_class, _leaf = path.split("/")
        kind = {folder: kind for kind, folder in FOLDERS.items()}[folder]
        index = custom["block_index"]
        target = ImageTarget(
            kind=kind,
            name=name,
            hw_class=hw_class,
            runtime=custom["runtime"],
            bundle=hashes["sha256"],
            bundle_length=length,
            block_index=index["sha256"],
            block_index_length=index["length"],
            release_epoch=custom["release_epoch"],
            provenance=custom.get("provenance", ""),
        )
        numbers = (target.release_epoch, target.block_index_length, target.bundle_length)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise TargetError(f"{path}: a length or epoch is not a whole number")
        if target.bundle_length > MAX_BUNDLE_BYTES or target.block_index_length > MAX_INDEX_BYTES:
            raise TargetError(
                f"{path}: a bundle of {target.bundle_length:,} bytes and a block index of "
                f"{target.block_index_length:,}; at most {MAX_BUNDLE_BYTES:,} and {MAX_INDEX_BYTES:,}"
            )
        digests = (target.bundle, target.block_index, *([target.provenance] if target.provenance != "" else []))
        if not all(map(digest.is_sha256, digests)):
            raise TargetError(f"{path}: a digest is not a sha256")
        if target.path != path or custom["kind"] != kind or custom["hw_class"] != hw_class:
            raise TargetError(f"{path}: path and custom data contradict each other")
    except TargetError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TargetError(f"{path}: not an Edgewright target: {error!r}") from error
    return target
