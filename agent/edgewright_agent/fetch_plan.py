"""What has to be fetched for an artifact, and whether the disk has room for it.

The two documents come first: the bundle (which files) and the block index (in which pieces). Both are small, both
are checked against the signed target, and both stay beside the partial download, so that a restart
plans without the network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.link import BlockSource
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import block_index, digest, durable
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
    """An artifact's files and blocks. `reused` maps a file to one with the same sha256 that is on this disk."""

    target: ImageTarget
    document: bytes
    bundle: Bundle
    index: BlockIndex
    reused: Mapping[str, Path]

    @property
    def total_bytes(self) -> int:
        """Bytes to fetch, had nothing been fetched yet."""
        return sum(file.size for file in self.bundle.files if file.path not in self.reused)


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

    `reuse` names artifacts (bundles) on this disk; `reserve` is what stays free, in bytes. Raises LinkDown, Refused,
    BadAnswer, Cancelled, ArtifactCorrupt, ArtifactUnsafe, DiskFull, OSError.
    """
    folder = slots.make_partial(target.bundle)
    document = _document(folder / "bundle", target.bundle, target.bundle_length, source, cancellation)
    indexed = _document(folder / "block_index", target.block_index, target.block_index_length, source, cancellation)
    try:
        bundle = parse(document)
        index = block_index.parse(indexed, bundle)
    except (BundleError, BlockIndexError) as error:
        raise ArtifactCorrupt(f"artifact {target.bundle[:12]}: {error}") from error
    rules.check_names([file.path for file in bundle.files], target.runtime)
    plan = FetchPlan(target, document, bundle, index, _reusable(bundle, slots, reuse))
    check_disk(plan, folder, reserve)
    return plan


def check_disk(plan: FetchPlan, folder: Path, reserve: int) -> None:
    """Raise DiskFull unless what is still to be written fits and leaves `reserve` bytes free."""
    needed = _MARGIN_BYTES
    for file in plan.bundle.files:
        if file.path not in plan.reused:
            needed += max(file.size - _allocated(folder / "files" / file.path), 0)
    free = shutil.disk_usage(folder).free
    if needed + reserve > free:
        raise DiskFull(
            f"artifact {plan.target.bundle[:12]} needs {needed:,} bytes and {reserve:,} stay reserved (disk.reserve); "
            f"{folder.parent} has {free:,}, so {needed + reserve - free:,} are missing"
        )


def _document(path: Path, sha256: str, length: int, source: BlockSource, cancellation: Cancellation) -> bytes:
    if path.is_file() and path.stat().st_size == length:
        data = path.read_bytes()
        if digest.of_bytes(data) == sha256:
            return data
    data = source.fetch_object(sha256, length, cancellation)
    durable.write(path, data)
    return data


def _reusable(bundle: Bundle, slots: Slots, reuse: Sequence[str]) -> dict[str, Path]:
    here: dict[tuple[str, int], Path] = {}
    for name in reuse:
        if not slots.has(name):
            continue
        try:
            old = slots.bundle(name)
        except ArtifactDamaged:
            continue  # reuse only saves time: without it the file is fetched
        for file in old.files:
            here.setdefault((file.sha256, file.size), slots.artifact(name) / file.path)
    found = {file.path: here.get((file.sha256, file.size)) for file in bundle.files}
    return {path: old for path, old in found.items() if old is not None and slots.is_ours(old)}


def _allocated(path: Path) -> int:
    """Bytes that the file has on the disk already; where that cannot be told, its length."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else min(blocks * 512, status.st_size)
