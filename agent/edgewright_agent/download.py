"""Fetch an artifact's missing blocks, check each one while it is written, and give the folder its name when whole.

Interrupted anywhere, by a cut line or a power cut, it goes on where it was: what the journal names was synced
before. A block that is not what was signed is asked for again, and after that the artifact is refused.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from edgewright_agent.backoff import Backoff
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, FetchPlan
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import BLOCKS_S, BadAnswer, BlockSource, LinkDown
from edgewright_agent.partial_files import PartialFiles
from edgewright_agent.slots import Slots
from edgewright_contract import plain_file
from edgewright_contract.block_index import Block
from edgewright_contract.model_files import rules
from edgewright_contract.v1 import agent_pb2

REFETCHES: Final = 2
SYNC_BYTES: Final = 16 << 20
SYNC_S: Final = 2.0
MIN_CALL_BYTES: Final = 1 << 20
FIRST_CALL_BYTES: Final = 8 << 20
MAX_CALL_BYTES: Final = 64 << 20

Progress = Callable[[int, int], None]


def pull(
    plan: FetchPlan,
    source: BlockSource,
    slots: Slots,
    journal: DownloadJournal,
    *,
    progress: Progress,
    cancellation: Cancellation,
) -> Path:
    """The folder of the whole, verified artifact. Tries a broken line again until it is cancelled.

    `progress(done, total)` is called with bytes that are safely on the disk. Raises ArtifactCorrupt, ArtifactUnsafe,
    DiskFull, Refused, BadAnswer, Cancelled, OSError.
    """
    name = plan.target.bundle
    if slots.has(name):
        return slots.artifact(name)
    folder = slots.partial(name) / "files"
    with _disk_explained(folder):
        plain_file.make_folders_below(slots.make_partial(name), folder.name)
        files = PartialFiles(folder, plan.bundle)
        for path, old in plan.reused.items():
            files.take_over(path, old)
        try:
            _complete(_Fetch(plan, source, files, journal, progress=progress, cancellation=cancellation))
        finally:
            files.close()
        rules.check_contents({file.path: folder / file.path for file in plan.bundle.files})
        files.seal()
        whole = slots.adopt(name, plan.document, folder)
    journal.clear(name)
    shutil.rmtree(slots.partial(name))
    return whole


def _complete(fetch: _Fetch) -> None:
    """Fetch, then hash whole files; what the disk itself lost is fetched once more."""
    for _ in range(REFETCHES):
        fetch.missing_blocks()
        damaged = fetch.damaged_files()
        if not damaged:
            return
        fetch.forget(damaged)
    raise ArtifactCorrupt(f"{damaged[0]}: this device's disk does not keep what is written to it")


class _Fetch:
    """One download: what is there, what each bad block has cost, how fast the line is."""

    def __init__(
        self,
        plan: FetchPlan,
        source: BlockSource,
        files: PartialFiles,
        journal: DownloadJournal,
        *,
        progress: Progress,
        cancellation: Cancellation,
    ) -> None:
        self._plan, self._source, self._files = plan, source, files
        self._journal, self._progress, self._cancellation = journal, progress, cancellation
        self._blocks = [block for block in plan.index.blocks if block.path not in plan.reused]
        fresh = {file.path for file in plan.bundle.files if files.prepare(file.path, keep=file.path in plan.reused)}
        recorded = journal.done(plan.target.bundle, plan.target.block_index)
        self._done = {block.index for block in self._blocks if block.index in recorded and block.path not in fresh}
        self._unsynced: set[int] = set()
        self._unsynced_bytes, self._synced_at = 0, time.monotonic()
        self._bad: Counter[int] = Counter()
        self._call_bytes = FIRST_CALL_BYTES

    def missing_blocks(self) -> None:
        """Call after call until nothing is missing."""
        backoff, bad_answers = Backoff(), 0
        self._report()
        while missing := [block for block in self._blocks if block.index not in self._done]:
            self._cancellation.check()
            before, began = self._done_bytes(), time.monotonic()
            failure: LinkDown | BadAnswer | None = None
            try:
                self._call(missing)
            except (LinkDown, BadAnswer) as error:
                failure = error
            finally:
                self._sync()
            came = self._done_bytes() - before
            bad_answers = bad_answers + 1 if isinstance(failure, BadAnswer) and not came else 0
            if failure is not None and bad_answers > REFETCHES:
                raise failure
            if came:
                backoff.reset()
                self._adapt(came, time.monotonic() - began)
            if failure is not None or not came:
                self._cancellation.wait(backoff.pause())

    def damaged_files(self) -> list[str]:
        """Paths whose bytes on the disk are not what the bundle says."""
        damaged = []
        for file in self._plan.bundle.files:
            if self._files.sha256(file.path, self._cancellation.check) != file.sha256:
                damaged.append(file.path)
        return damaged

    def forget(self, damaged: Sequence[str]) -> None:
        """Have the files fetched from nothing; a reused one is let go of first, for it is another artifact's too."""
        reused = set(self._plan.reused)
        for path in damaged:
            self._files.discard(path)
            self._files.prepare(path, keep=False)
            if path in reused:
                self._blocks += [block for block in self._plan.index.blocks if block.path == path]
        lost = {block.index for block in self._blocks if block.path in damaged}
        self._done -= lost
        self._journal.record(self._plan.target.bundle, self._plan.target.block_index, self._done)

    def _call(self, missing: Sequence[Block]) -> None:
        """One FetchBlocks: the first missing blocks, as many as the line brings in good time."""
        wanted: dict[int, Block] = {}
        size = 0
        for block in missing:
            if wanted and size + block.size > self._call_bytes:
                break
            wanted[block.index] = block
            size += block.size
        target = self._plan.target
        parts = self._source.fetch_blocks(
            target.bundle, target.block_index, list(ranges(sorted(wanted))), size, self._cancellation
        )
        with closing(parts):
            for index, data in _whole_blocks(parts, wanted, self._source.name):
                self._take(wanted[index], data)

    def _take(self, block: Block, data: bytes) -> None:
        if hashlib.sha256(data).digest() != block.sha256:
            self._refuse_block(block)
            return
        self._files.write(block.path, block.offset, data)
        self._unsynced.add(block.index)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_BYTES or time.monotonic() - self._synced_at >= SYNC_S:
            self._sync()

    def _refuse_block(self, block: Block) -> None:
        self._bad[block.index] += 1
        if self._bad[block.index] > REFETCHES:
            raise ArtifactCorrupt(
                f"{block.path}: block {block.index} from {self._source.name} is not what was signed, "
                f"{self._bad[block.index]} times in a row"
            )

    def _sync(self) -> None:
        """First the data, then the journal, then the report."""
        self._synced_at = time.monotonic()
        if not self._unsynced:
            return
        self._files.sync()
        self._done |= self._unsynced
        self._unsynced, self._unsynced_bytes = set(), 0
        self._journal.record(self._plan.target.bundle, self._plan.target.block_index, self._done)
        self._report()

    def _done_bytes(self) -> int:
        return sum(block.size for block in self._blocks if block.index in self._done)

    def _report(self) -> None:
        self._progress(self._done_bytes(), sum(block.size for block in self._blocks))

    def _adapt(self, came: int, seconds: float) -> None:
        """Aim at calls of a twelfth of their deadline: a line that slows down tenfold still gets through."""
        aimed = came / max(seconds, 0.001) * BLOCKS_S / 12
        self._call_bytes = int(min(max(aimed, MIN_CALL_BYTES), MAX_CALL_BYTES))


def ranges(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Sorted numbers as (first, count)."""
    first = count = 0
    for index in indexes:
        if count and index == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = index, 1
    if count:
        yield first, count


def _whole_blocks(
    parts: Iterator[agent_pb2.BlockPart], wanted: dict[int, Block], source: str
) -> Iterator[tuple[int, bytes]]:
    """Blocks put together from their parts. Never holds more than one. Raises BadAnswer."""
    current, data = -1, bytearray()
    for part in parts:
        if part.encoding not in (agent_pb2.ENCODING_UNSPECIFIED, agent_pb2.ENCODING_RAW):
            raise BadAnswer(f"{source}: block {part.index} in encoding {part.encoding}, which was not asked for")
        if part.index != current:
            if data or part.index <= current or part.index not in wanted:
                raise BadAnswer(f"{source}: block {part.index} was not asked for, or not now")
            current = part.index
        elif not data:
            raise BadAnswer(f"{source}: block {part.index} goes on after its end")
        data += part.data
        size = wanted[current].size
        if len(data) > size:
            raise BadAnswer(f"{source}: block {current} is longer than its {size} bytes")
        if len(data) == size:
            yield current, bytes(data)
            data = bytearray()


@contextmanager
def _disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"{folder}: {error.strerror} while writing; free some space") from error
