"""What has to be fetched for an artifact, what is here already, and whether the disk has room for it.

The two documents come first: the bundle (which files) and the block index (in which pieces). Both are small, both
are checked against the signed target, and both stay beside the partial download, so that a restart
plans without the network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgewright_agent import held_blocks
from edgewright_agent.arriving import MAX_BASES
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.held_blocks import Held, HeldBlock
from edgewright_agent.link import BlockSource
from edgewright_agent.partial_files import link
from edgewright_agent.slots import Slots
from edgewright_contract import block_index, digest, durable, plain_file
from edgewright_contract.block_index import BlockIndex, BlockIndexError
from edgewright_contract.bundle import Bundle, BundleError, parse
from edgewright_contract.model_files import rules
from edgewright_contract.targets import ImageTarget

# Directory entries, the journal, the documents: what is written besides the model.
_MARGIN_BYTES: Final = 4 << 20


class DiskFull(Exception):
    """The disk has no room for the artifact. The text has both numbers."""


class ArtifactCorrupt(Exception):
    """The bytes are not those that were signed, wherever they come from. The text names file, block and source."""


@dataclass(frozen=True)
class FetchPlan:
    """An artifact's files and blocks, and its two documents.

    `reused` maps a file to one with the same sha256 that is on this disk, to be linked to; `local` maps blocks, of all
    files, to where their bytes should stand on this disk. `bases` are artifacts that are here and that blocks may come
    against. `reserve` is what stays free, in bytes.
    """

    target: ImageTarget
    document: bytes
    indexed: bytes
    bundle: Bundle
    index: BlockIndex
    reused: Mapping[str, Path]
    local: Mapping[int, Sequence[HeldBlock]]
    bases: Sequence[str]
    reserve: int

    @property
    def total_bytes(self) -> int:
        """Bytes to fetch, had nothing been fetched yet."""
        return sum(b.size for b in self.index.blocks if b.path not in self.reused and b.index not in self.local)

    def without(self, path: str) -> FetchPlan:
        """The same, but this file gets bytes of its own."""
        return replace(self, reused={name: old for name, old in self.reused.items() if name != path})


def prepare(
    target: ImageTarget,
    source: BlockSource,
    slots: Slots,
    *,
    reuse: Sequence[str],
    reserve: int,
    cancellation: Cancellation,
) -> FetchPlan:
    """Fetch and check the documents, find what is here already, and check the disk.

    `reuse` names artifacts (bundles) on this disk, in the order in which they are looked into; `reserve` is what stays
    free, in bytes. Raises LinkDown, Refused, BadAnswer, Cancelled, ArtifactCorrupt, ArtifactUnsafe, DiskFull, OSError.
    """
    folder = slots.make_partial(target.bundle)

    def document_of(name: str, kept: Path, sha256: str, length: int) -> bytes:
        for path in (folder / name, kept):
            if (data := _kept(path, sha256, length)) is not None:
                return data
        data = source.fetch_object(sha256, length, cancellation)
        durable.write(folder / name, data)
        return data

    document = document_of("bundle", slots.document(target.bundle), target.bundle, target.bundle_length)
    kept = slots.index_document(target.bundle)
    indexed = document_of("block_index", kept, target.block_index, target.block_index_length)
    try:
        bundle = parse(document)
        index = block_index.parse(indexed, bundle)
    except (BundleError, BlockIndexError) as error:
        raise ArtifactCorrupt(f"artifact {target.bundle[:12]}: {error}") from error
    rules.check_names([file.path for file in bundle.files], target.runtime)
    held = held_blocks.find(bundle, index.blocks, slots, [*reuse, target.bundle])
    linked = _linked(held, slots, folder)
    bases = [name for name in dict.fromkeys(reuse) if name != target.bundle and slots.has(name)][:MAX_BASES]
    plan = FetchPlan(target, document, indexed, bundle, index, linked, held.blocks, bases, reserve)
    try:
        check_disk(plan, folder)
    except DiskFull:
        if slots.has(target.bundle) or not slots.forget_damaged(target.bundle):
            raise
        # The blocks of what was set aside are worth less than the room that it takes.
        return prepare(target, source, slots, reuse=reuse, reserve=reserve, cancellation=cancellation)
    return plan


def check_disk(plan: FetchPlan, folder: Path) -> None:
    """Raise DiskFull unless what is still to be written fits and leaves `plan.reserve` bytes free.

    Every byte of a file that is not linked counts, also what is copied on this disk: whether the file system shares
    it with the old file shows only when it is done.
    """
    reserve, needed = plan.reserve, _MARGIN_BYTES + len(plan.document) + len(plan.indexed)
    for file in plan.bundle.files:
        if file.path not in plan.reused:
            needed += max(file.size - _allocated(folder / "files" / file.path), 0)
    free = shutil.disk_usage(folder).free
    if needed + reserve > free:
        raise DiskFull(
            f"artifact {plan.target.bundle[:12]} needs {needed:,} bytes and {reserve:,} stay reserved (disk.reserve); "
            f"{folder.parent} has {free:,}, so {needed + reserve - free:,} are missing"
        )


def _kept(path: Path, sha256: str, length: int) -> bytes | None:
    """The document, where it stands as it was signed."""
    if path.is_file() and path.stat().st_size == length:
        data = path.read_bytes()
        if digest.of_bytes(data) == sha256:
            return data
    return None


def _linked(held: Held, slots: Slots, folder: Path) -> dict[str, Path]:
    """The files to be linked to: those that nobody but this agent can write to, on a file system with links.

    Anywhere else they would be copied, and take room; then their blocks are, with the room planned for them.
    """
    folders = {name: slots.folder(name) for name, _ in held.files.values()}
    there = {path: (folders[name], old) for path, (name, old) in held.files.items()}
    found = {path: folder / old for path, (folder, old) in there.items() if folder is not None}
    found = {path: old for path, old in found.items() if slots.is_ours(old)}
    trial = folder / "link"
    plain_file.remove(trial)
    can_link = not found or link(next(iter(found.values())), trial)
    plain_file.remove(trial)
    return found if can_link else {}


def _allocated(path: Path) -> int:
    """Bytes that the file has on the disk already; where that cannot be told, its length."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(blocks * 512, status.st_size)
