"""The acts of an update on a device without an engine: what is fetched is real, what an engine would do takes time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from edgewright_agent.cancellation import Cancellation, in_thread
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, FetchPlan, prepare
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import Act, Fault, Lifecycle
from edgewright_agent.link import BadAnswer, BlockSource, LinkDown, Refused
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.update import ActFailed
from edgewright_contract.model_files import ArtifactUnsafe
from edgewright_contract.targets import ImageTarget
from tests.simulated_fleet.orders import Orders, until

_AGAIN_S: Final = 0.5  # before a line that is down is tried again

# Of what an update dies when it is told to, by act: each is the release's own fault, so the device holds it then.
_FAULTS: Final = {
    "plan": Fault.ARTIFACT_UNSAFE,
    "download": Fault.ARTIFACT_CORRUPT,
    "verify": Fault.ARTIFACT_UNSAFE,
    "start": Fault.ENGINE_FAILED,
    "prove": Fault.ACCELERATOR_WRONG,
    "probe": Fault.PROBE_FAILED,
}


class SimulatedActs:
    """See update.Acts."""

    def __init__(
        self,
        store: StateStore,
        slots: Slots,
        journal: DownloadJournal,
        *,
        source: BlockSource,
        orders: Callable[[], Orders],
        on_activated: Callable[[ImageTarget], None],
    ) -> None:
        """`on_activated` is called in a thread when an artifact took traffic."""
        self._store, self._slots, self._journal, self._source = store, slots, journal, source
        self._orders, self._on_activated = orders, on_activated
        self._plan: FetchPlan | None = None

    async def perform(self, act: Act, state: Lifecycle) -> None:
        """Do it for as long as it is told to take. Raises ActFailed."""
        name = act.value
        await until(self._orders, lambda orders: orders.holds_at != name)
        await asyncio.sleep(self._orders().takes(name))
        if self._orders().fails_at == name and name in _FAULTS:
            raise ActFailed(_FAULTS[name], f"this device was told that {name} fails")
        try:
            await self._do(act, state)
        except ArtifactUnsafe as error:
            raise ActFailed(Fault.ARTIFACT_UNSAFE, str(error)) from error
        except (ArtifactCorrupt, ArtifactDamaged, BadAnswer) as error:
            raise ActFailed(Fault.ARTIFACT_CORRUPT, str(error)) from error
        except (Refused, LinkDown) as error:
            raise ActFailed(Fault.DOWNLOAD_FAILED, str(error)) from error
        except DiskFull as error:
            raise ActFailed(Fault.DISK_FULL, str(error)) from error

    async def _do(self, act: Act, state: Lifecycle) -> None:
        if act is Act.PLAN:
            self._plan = await in_thread(lambda cancellation: self._prepare(state, cancellation))
        elif act is Act.DOWNLOAD and self._plan is not None:
            plan = self._plan
            await in_thread(
                lambda cancellation: pull(
                    plan, self._source, self._slots, self._journal, progress=_unseen, cancellation=cancellation
                )
            )
        elif act is Act.VERIFY:
            artifact = self._known(state.release).release.artifact
            await in_thread(lambda cancellation: self._slots.verify(artifact, cancellation.check))
        elif act is Act.DRAIN:
            if state.release:
                await asyncio.to_thread(self._on_activated, self._known(state.release).target)
            await in_thread(lambda cancellation: self._collect(state, cancellation))

    def _prepare(self, state: Lifecycle, cancellation: Cancellation) -> FetchPlan | None:
        target = self._known(state.release).target
        if self._slots.has(target.bundle):
            return None
        reuse = [self._known(release).release.artifact for release in (state.active, state.previous) if release]
        while True:
            try:
                return prepare(target, self._source, self._slots, reuse=reuse, reserve=0, cancellation=cancellation)
            except LinkDown:
                cancellation.wait(_AGAIN_S)  # the step's deadline ends this

    def _collect(self, state: Lifecycle, cancellation: Cancellation) -> None:
        known = map(self._store.known, self._store.load().releases | state.releases)
        self._slots.collect({one.release.artifact for one in known if one is not None}, cancellation.check)
        self._store.forget_unused()

    def _known(self, release: str) -> KnownRelease:
        known = self._store.known(release)
        if known is None:
            raise ActFailed(Fault.INTERNAL, f"release {release[:12]} is not known here")
        return known


def _unseen(_done: int, _total: int) -> None:
    """How far a download is, nobody looks at."""
