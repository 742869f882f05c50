"""What is damaged at rest, put right: only what is bad is fetched, into new files that take the old ones' names.

An artifact that no release needs is not worth fetching for: it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.download import mend
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, prepare
from edgewright_agent.inspection import Finding
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import BadAnswer, BlockSource, LinkDown, Refused
from edgewright_agent.slots import Slots
from edgewright_contract.model_files import ArtifactUnsafe
from edgewright_contract.targets import ImageTarget


@dataclass(frozen=True)
class Mended:
    """What became of findings. `done`: a line for each artifact; `left`: findings that stand, `why`: the reasons."""

    done: tuple[str, ...] = ()
    left: tuple[Finding, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mender:
    """Mends one artifact after the other.

    `reserve`: bytes that stay free on the disk; `patience_s`: how long the line may be down."""

    slots: Slots
    journal: DownloadJournal
    source: BlockSource
    reserve: int
    patience_s: float

    def mend(
        self, findings: Sequence[Finding], targets: Mapping[str, ImageTarget], cancellation: Cancellation
    ) -> Mended:
        """`targets`: what was signed of the artifacts that are needed, by bundle. Raises StateDamaged, Cancelled."""
        done, left, why = [], [], []
        damaged = list(dict.fromkeys(finding.artifact for finding in findings))
        for name in list(damaged):
            target = targets.get(name)
            if target is None:
                self.slots.remove(name)
                self.journal.clear(name)
                done.append(f"artifact {name[:12]}: nothing needs it any more; it was removed")
                continue
            try:
                made = self._one(target, damaged, cancellation)
                damaged.remove(name)
                done.append(
                    f"artifact {name[:12]}: {', '.join(made) or 'nothing but what did not belong to it'}: mended"
                )
            except (LinkDown, Refused, BadAnswer, ArtifactCorrupt, ArtifactUnsafe, DiskFull, OSError) as error:
                left += [finding for finding in findings if finding.artifact == name]
                why.append(f"artifact {name[:12]} is not mended yet: {error}")
        return Mended(tuple(done), tuple(left), tuple(why))

    def _one(self, target: ImageTarget, damaged: Sequence[str], cancellation: Cancellation) -> list[str]:
        # Sound and mended ones first: what they share with this one is linked, not made twice.
        others = sorted(set(self.slots.names()) - {target.bundle}, key=lambda name: name in damaged)
        plan = prepare(target, self.source, self.slots, reuse=others, reserve=self.reserve, cancellation=cancellation)
        return mend(plan, self.source, self.slots, self.journal, patience_s=self.patience_s, cancellation=cancellation)
