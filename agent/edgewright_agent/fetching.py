"""Getting an artifact's missing blocks, copied on this disk or fetched, each checked before it counts.

What is written is synced, then noted in the journal, then reported. A block that is not what was signed is asked for
again, as it is, and after that the artifact is refused.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Final

from edgewright_agent.arriving import RAW_ONLY, Arrived, Bases, Undecodable, encodings, whole_blocks
from edgewright_agent.backoff import Backoff
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, FetchPlan, check_disk
from edgewright_agent.held_blocks import HeldBlock, HeldFiles
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import BLOCKS_S, BadAnswer, BlockSource, LinkDown
from edgewright_agent.partial_files import PartialFiles
from edgewright_agent.slots import Slots
from edgewright_contract.block_index import Block
from edgewright_contract.v1 import agent_pb2

REFETCHES: Final = 2
SYNC_BYTES: Final = 16 << 20
SYNC_S: Final = 2.0
MIN_CALL_BYTES: Final = 1 << 20
FIRST_CALL_BYTES: Final = 8 << 20
MAX_CALL_BYTES: Final = 64 << 20

Progress = Callable[[int, int], None]
Waits = Callable[[float, str], None]
Trouble = Callable[[str], None]

_log = logging.getLogger(__name__)


class Fetch:
    """One download: what is there, what each bad block has cost, how fast the line is."""

    def __init__(
        self,
        plan: FetchPlan,
        source: BlockSource,
        slots: Slots,
        files: PartialFiles,
        journal: DownloadJournal,
        *,
        progress: Progress,
        cancellation: Cancellation,
    ) -> None:
        self._plan, self._source, self._slots, self._files = plan, source, slots, files
        self._held, self._bases = HeldFiles(slots), Bases(slots, plan.bases)
        self._journal, self._progress, self._cancellation = journal, progress, cancellation
        self._blocks = [block for block in plan.index.blocks if block.path not in plan.reused]
        fresh = {file.path for file in plan.bundle.files if files.prepare(file.path, keep=file.path in plan.reused)}
        recorded = journal.done(plan.target.bundle, plan.target.block_index)
        self._done = {block.index for block in self._blocks if block.index in recorded and block.path not in fresh}
        self._local = dict(plan.local)
        self._unsynced: set[int] = set()
        self._unsynced_bytes, self._synced_at = 0, time.monotonic()
        self._bad: Counter[int] = Counter()
        self._plainly: set[int] = set()  # to be asked for as they are, for they could not be had otherwise
        self._call_bytes = FIRST_CALL_BYTES
        self.on_trouble: Trouble = lambda text: None  # what is wrong now, for people; empty: nothing
        self.patience_s = math.inf  # how long a line may be down in a row
        self.waits: Waits = lambda seconds, reason: None  # told when the source says to come back later, and why
        self._copied = self._came = self._on_the_line = 0

    def __enter__(self) -> Fetch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for files in (self._files, self._held, self._bases):
            files.close()

    def told(self) -> str:
        """What it took, for the log."""
        line = f"{self._came:,} bytes were fetched as {self._on_the_line:,}, {self._copied:,} stood on this disk"
        return f"{line}; {self._refused()}" if self._plainly else line

    def _refused(self) -> str:
        return f"{len(self._plainly)} blocks had to be asked for again as they are" if self._plainly else ""

    def held_blocks(self) -> None:
        """Copy what stands on this disk elsewhere; what does not, after all, is left to be fetched."""
        self._report()
        for block in [block for block in self._blocks if block.index in self._local and block.index not in self._done]:
            self._cancellation.check()
            for place in self._local[block.index]:
                if self._copy(block, place):
                    break
            else:
                del self._local[block.index]
        self._sync()

    def _copy(self, block: Block, place: HeldBlock) -> bool:
        """Whether the block really stands there; then it is copied. Raises OSError when it cannot be written."""
        try:
            data, source = self._held.read(place.artifact, place.path, place.offset, block.size)
        except OSError as error:
            _log.info("%s: block %d is not where it was on this disk: %s", block.path, block.index, error)
            return False
        if hashlib.sha256(data).digest() != block.sha256:
            return False
        self._files.copy(block.path, block.offset, data, source, place.offset)
        self._copied += block.size
        self._written(block)
        return True

    def missing_blocks(self) -> None:
        """Call after call until nothing is missing."""
        backoff, bad_answers, up_at = Backoff(), 0, time.monotonic()
        self._report()
        while missing := [block for block in self._blocks if block.index not in self._done]:
            self._cancellation.check()
            before, plainly, began = self._done_bytes(), len(self._plainly), time.monotonic()
            failure: LinkDown | BadAnswer | None = None
            try:
                self._call(missing)
            except (LinkDown, BadAnswer) as error:
                failure = error
            finally:
                self._sync()
            came = self._done_bytes() - before
            # What is asked for in a plainer way from now on got on, too.
            got_on = bool(came) or len(self._plainly) > plainly
            bad_answers = bad_answers + 1 if isinstance(failure, BadAnswer) and not got_on else 0
            up_at = time.monotonic() if got_on else up_at
            if failure is not None and (bad_answers > REFETCHES or time.monotonic() - up_at > self.patience_s):
                raise failure
            told_s = failure.again_s if isinstance(failure, LinkDown) else None
            self.on_trouble(str(failure) if failure is not None and told_s is None else self._refused())
            if came:
                backoff.reset()
                self._adapt(came, time.monotonic() - began)
            if failure is not None or not got_on:
                if told_s is not None:
                    self.waits(told_s, str(failure))
                self._cancellation.wait(backoff.pause() if told_s is None else told_s)

    def damaged_files(self) -> list[str]:
        """Paths whose bytes on the disk are not what the bundle says."""
        damaged = []
        for file in self._plan.bundle.files:
            if self._files.sha256(file.path, self._cancellation.check) != file.sha256:
                damaged.append(file.path)
        return damaged

    def forget(self, damaged: Sequence[str]) -> None:
        """Have the files made from nothing; a reused one is let go of first, for it is another artifact's too.

        Raises DiskFull: then what was linked to has no room of its own.
        """
        for path in damaged:
            self._files.discard(path)
            if path in self._plan.reused:
                self._plan = self._plan.without(path)
                self._blocks += [block for block in self._plan.index.blocks if block.path == path]
        self._blocks.sort(key=lambda block: block.index)
        self._check_disk()
        for path in damaged:
            self._files.prepare(path, keep=False)
        lost = {block.index for block in self._blocks if block.path in damaged}
        self._done -= lost
        self._journal.record(self._plan.target.bundle, self._plan.target.block_index, self._done)

    def _check_disk(self) -> None:
        try:
            check_disk(self._plan, self._files.folder.parent)
        except DiskFull:
            # The blocks of what was set aside are worth less than the room that it takes.
            if not self._slots.forget_damaged(self._plan.target.bundle):
                raise
            check_disk(self._plan, self._files.folder.parent)

    def _call(self, missing: Sequence[Block]) -> None:
        """One FetchBlocks: the first missing blocks, as many as the line brings in good time."""
        plainly = missing[0].index in self._plainly
        wanted: dict[int, Block] = {}
        size = 0
        for block in missing:
            if (block.index in self._plainly) is not plainly:
                continue
            if wanted and size + block.size > self._call_bytes:
                break
            wanted[block.index] = block
            size += block.size
        target, bases = self._plan.target, () if plainly else self._plan.bases
        accepted = RAW_ONLY if plainly else encodings(bases)
        parts = self._source.fetch_blocks(
            target.bundle,
            target.block_index,
            list(ranges(sorted(wanted))),
            size,
            self._cancellation,
            accepted=accepted,
            bases=bases,
        )
        try:
            with closing(parts):
                for arrived in whole_blocks(parts, wanted, accepted, self._source.name):
                    self._take(wanted[arrived.index], arrived)
        except BadAnswer as error:
            if not plainly and not self._unsynced.issuperset(wanted):
                self._ask_plainly(wanted.keys() - self._unsynced - self._done, str(error))
            raise

    def _take(self, block: Block, arrived: Arrived) -> None:
        self._on_the_line += len(arrived.data)
        try:
            data = self._bases.decoded(arrived, block)
        except Undecodable as error:
            self._ask_plainly([block.index], f"{self._source.name}: {block.path}: block {block.index} as {error}")
            return
        if hashlib.sha256(data).digest() != block.sha256:
            if arrived.encoding == agent_pb2.ENCODING_RAW:
                self._refuse_block(block)
                return
            form = agent_pb2.Encoding.Name(arrived.encoding).removeprefix("ENCODING_")
            told = f"{self._source.name}: {block.path}: block {block.index} as {form} does not give what was signed"
            self._ask_plainly([block.index], told)
            return
        self._files.write(block.path, block.offset, data)
        self._came += len(data)
        self._written(block)

    def _written(self, block: Block) -> None:
        self._unsynced.add(block.index)
        self._unsynced_bytes += block.size
        if self._unsynced_bytes >= SYNC_BYTES or time.monotonic() - self._synced_at >= SYNC_S:
            self._sync()

    def _ask_plainly(self, blocks: Iterable[int], why: str) -> None:
        """From now on these are asked for as they are: what they were made against may be damaged here."""
        if not self._plainly:  # the first tells what there is to tell; `told` has their number
            _log.warning("%s; asked for again as it is", why)
        self._plainly.update(blocks)

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
        fetched = [block for block in self._blocks if block.index not in self._local]
        done = sum(block.size for block in fetched if block.index in self._done)
        self._progress(done, sum(block.size for block in fetched))

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
