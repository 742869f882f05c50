"""The changes that an operator asks for, each a task of the controller's own.

The caller may leave, and finds it done. What the manifest itself gets wrong is said before anything begins; what goes
wrong later is the change's result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller import log
from edgewright_controller.compile.builder import Builder
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.compile.sources.sources import Sources
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.ledger import Ledger, LedgerError, audit
from edgewright_controller.plan import PlanError
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.rollout import RolloutError
from edgewright_controller.service import plan_message, rollout_views
from edgewright_controller.service.applying import Applying, Order
from edgewright_controller.service.change import ALL, BadInput, ChangeRefused, ManifestText, Selection
from edgewright_controller.service.compiling import Compiling
from edgewright_controller.service.conflicts import with_warnings
from edgewright_controller.service.delivery_terms import DeliveryTerms
from edgewright_controller.service.deltas import Deltas
from edgewright_controller.service.job import Job
from edgewright_controller.service.planning import Planning
from edgewright_controller.service.rolling_back import RollingBack
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.store_use import StoreUse, Use
from edgewright_controller.service.survey import Surveyor
from edgewright_controller.service.ways_back import Asked
from edgewright_controller.unix_time import unix_ms

# What ends a change in an orderly way; its message is the change's result.
_ENDINGS = (BadInput, ChangeRefused, LedgerError, PublishError, RolloutError, PlanError, RecipeError, OSError)

_STOPPING: Final = "the controller is stopping; a rollout goes on when it is back, builds with the next apply"

_log = log.of(__name__)


class Jobs:
    """Plans, applies and rolls back, for one fleet."""

    def __init__(
        self,
        fleet: str,
        ledger: Ledger,
        *,
        store: ArtifactStore,
        builder: Builder,
        image: ImageRepository,
        runner: RolloutsRunner,
        sources: Sources,
        deltas: Deltas,
        terms: DeliveryTerms,
        shut: Callable[[], frozenset[str]],
        online: Callable[[str], bool],
        clock: Callable[[], datetime],
        use: StoreUse | None = None,
    ) -> None:
        """`shut`: the devices of which everything is revoked. `online`: whether a device was heard of lately. `use`:
        where changes say that they count on the store."""
        self._fleet, self._ledger, self._runner, self._clock = fleet, ledger, runner, clock
        self._planning = Planning(fleet, ledger, Surveyor(ledger, store, builder, sources, shut=shut, online=online))
        self._compiling = Compiling(fleet, ledger, store, builder, clock)
        self._applying = Applying(
            ledger,
            self._planning,
            self._compiling,
            image=image,
            runner=runner,
            sources=sources,
            deltas=deltas,
            terms=terms,
            clock=clock,
        )
        self._rolling_back = RollingBack(ledger, store, runner, shut)
        self._use = use or StoreUse()
        self._tasks: set[asyncio.Task[None]] = set()

    async def plan(self, text: ManifestText, only: Selection = ALL) -> operator_pb2.PlanResponse:
        """What an apply of this manifest would do. Raises BadInput, ChangeRefused, LedgerError."""
        plan, _ = await self._planning.plan(await self._planning.read(text), text, only, again=False)
        return plan_message.message(with_warnings(plan, self._runner.running))

    async def apply(self, order: Order) -> Job:
        """Begin to make the fleet what the manifest says. Raises BadInput, ChangeRefused, LedgerError."""
        what = f"apply of {order.text.file}"
        use = await self._use.begin(what)
        try:
            looked = await self._applying.look(order)
            await self._enter(order.by, "apply", audit.with_reason(str(order), order.why))
        except BaseException:
            use.end()
            raise

        async def change(job: Job) -> operator_pb2.ApplyResult:
            return await self._applying.carry_out(looked, job, entered=use.end)

        return self._begin(what, order.by, change, use)

    async def rollback(self, asked: Asked, *, by: str, why: str = "") -> Job:
        """Begin to return devices to the release before. Raises BadInput, ChangeRefused, LedgerError."""
        use = await self._use.begin("a rollback")
        try:
            found = await self._rolling_back.look(asked)
            ways = ", ".join(f"{device}: {left[:12]} → {to[:12]}" for device, (left, to) in sorted(found.ways.items()))
            await self._enter(by, "rollback", audit.with_reason(ways, why), release=asked.release)
        except BaseException:
            use.end()
            raise

        async def change(job: Job) -> operator_pb2.ApplyResult:
            finish, came_to = await self._rolling_back.carry_out(job, asked, found, by=by, why=why, entered=use.end)
            result = rollout_views.result(finish.phase, finish.reason, finish.counts)
            if came_to.stuck:
                result.succeeded = False
                result.summary += f"; cannot go back: {', '.join(sorted(came_to.stuck))}"
            return result

        return self._begin("rollback", by, change, use)

    async def close(self) -> None:
        """End what runs: builds are cancelled, rollouts go on at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._compiling.close()

    def _begin(
        self, what: str, by: str, change: Callable[[Job], Coroutine[Any, Any, operator_pb2.ApplyResult]], use: Use
    ) -> Job:
        job = Job()

        async def run() -> None:
            _log.info("change begins", what=what, operator=by)
            try:
                result = await change(job)
            except _ENDINGS as error:
                result = operator_pb2.ApplyResult(summary=str(error))
            except asyncio.CancelledError:
                job.say(_result(operator_pb2.ApplyResult(summary=_STOPPING)))
                raise
            except Exception as error:
                # A fault of ours: the operator is told that much, the log has the rest.
                _log.exception("change ended by a fault", what=what)
                result = operator_pb2.ApplyResult(summary=f"a fault in the controller, see its log: {error!r}")
            _log.info("change ended", what=what, succeeded=result.succeeded, why=result.summary)
            job.say(_result(result))

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: use.end())  # also when it never ran
        return job

    async def _enter(self, by: str, action: str, detail: str, release: str = "") -> None:
        """Note in the audit log what an operator wants, before anything is done."""
        now_ms, actor = unix_ms(self._clock()), f"operator {by}"
        said = {"actor": actor, "action": action, "subject": self._fleet, "detail": detail}
        await self._ledger.write(lambda c: audit.append(c, **said, release=release, now_ms=now_ms))


def _result(result: operator_pb2.ApplyResult) -> operator_pb2.ApplyEvent:
    return operator_pb2.ApplyEvent(result=result)
