"""Get an artifact whole: its missing blocks, then every file hashed once more, then the folder gets its name.

Blocks that stand on this disk in another artifact are copied, the others fetched, against what is here where the
source can. Interrupted anywhere, by a cut line or a power cut, it goes on where it was: what the journal names was
synced before.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, FetchPlan, check_disk
from edgewright_agent.fetching import REFETCHES, Fetch, Progress, Trouble, Waits
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import BlockSource
from edgewright_agent.partial_files import PartialFiles
from edgewright_agent.slots import Slots
from edgewright_contract import plain_file
from edgewright_contract.model_files import rules

_log = logging.getLogger(__name__)


def pull(
    plan: FetchPlan,
    source: BlockSource,
    slots: Slots,
    journal: DownloadJournal,
    *,
    progress: Progress,
    waits: Waits = lambda seconds, reason: None,
    trouble: Trouble = lambda text: None,
    cancellation: Cancellation,
) -> Path:
    """The folder of the whole, verified artifact. Tries a broken line again until it is cancelled.

    `progress(done, total)` is called with bytes to be fetched: those that are safely on the disk, and all;
    `waits(seconds, reason)` when the source said to come back later; `trouble(text)` after each call to the source with
    what is wrong, in words, empty: nothing. Raises ArtifactCorrupt, ArtifactUnsafe, DiskFull, Refused, BadAnswer,
    Cancelled, OSError.
    """
    name = plan.target.bundle
    if slots.has(name):
        return slots.artifact(name)
    with _disk_explained(slots.partial(name)):
        folder = _made(
            plan,
            source,
            slots,
            journal,
            progress=progress,
            waits=waits,
            trouble=trouble,
            cancellation=cancellation,
        )
        whole = slots.adopt(name, plan.document, folder, plan.indexed)
    _clear(name, slots, journal)
    return whole


def mend(
    plan: FetchPlan,
    source: BlockSource,
    slots: Slots,
    journal: DownloadJournal,
    *,
    patience_s: float,
    cancellation: Cancellation,
) -> list[str]:
    """Exchange what is damaged of an artifact that is here, and perhaps served, for new files; their paths.

    Sound files are linked and sound blocks copied; the rest is fetched. A line that is down for longer than
    `patience_s` seconds ends it; what came stays. Raises as `pull` does, and LinkDown.
    """
    name = plan.target.bundle
    with _disk_explained(slots.partial(name)):
        folder = _made(plan, source, slots, journal, patience_s=patience_s, cancellation=cancellation)
        exchanged = slots.exchange(name, plan.document, folder, plan.indexed)
    _clear(name, slots, journal)
    return exchanged


def _made(
    plan: FetchPlan,
    source: BlockSource,
    slots: Slots,
    journal: DownloadJournal,
    *,
    progress: Progress = lambda done, total: None,
    waits: Waits = lambda seconds, reason: None,
    trouble: Trouble = lambda text: None,
    patience_s: float = math.inf,
    cancellation: Cancellation,
) -> Path:
    """The artifact's files, whole, verified and durable, in the folder of the unfinished download."""
    name = plan.target.bundle
    folder = slots.partial(name) / "files"
    plain_file.make_folders_below(slots.make_partial(name), folder.name)
    files = PartialFiles(folder, plan.bundle)
    for path, old in plan.reused.items():
        if not files.take_over(path, old):
            plan = plan.without(path)
            check_disk(plan, slots.partial(name))
    with Fetch(plan, source, slots, files, journal, progress=progress, cancellation=cancellation) as fetch:
        fetch.patience_s, fetch.waits, fetch.on_trouble = patience_s, waits, trouble
        _complete(fetch)
    _log.info("artifact %s: %s", name[:12], fetch.told())
    rules.check_contents({file.path: folder / file.path for file in plan.bundle.files})
    files.seal()
    return folder


def _clear(name: str, slots: Slots, journal: DownloadJournal) -> None:
    journal.clear(name)
    slots.remove_partial(name)


def _complete(fetch: Fetch) -> None:
    """Copy and fetch, then hash whole files; what the disk itself lost is had once more."""
    for _ in range(REFETCHES):
        fetch.held_blocks()
        fetch.missing_blocks()
        damaged = fetch.damaged_files()
        if not damaged:
            return
        fetch.forget(damaged)
    raise ArtifactCorrupt(f"{damaged[0]}: this device's disk does not keep what is written to it")


@contextmanager
def _disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"{folder}: {error.strerror} while writing; free some space") from error
