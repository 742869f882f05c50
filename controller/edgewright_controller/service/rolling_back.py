"""A rollback: what was released is taken back, at once, and is not released again by itself.

It has a policy of its own. A fault is being undone, so the manifest's waves, windows and limits do not apply to it, and
a device that fails holds up nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.gates import GatePolicy, HealthPolicy
from edgewright_controller.ledger import Ledger
from edgewright_controller.plan import listed
from edgewright_controller.rollout import Finish, RolloutPolicy
from edgewright_controller.service.job import Job
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.ways_back import Asked, Surroundings, WaysBack, still_leaving, ways_back
from edgewright_controller.service.wish import Wish

AT_ONCE: Final = "it goes to all of them at once: waves, windows and limits do not apply to a rollback"


class RollingBack:
    """Looks where devices would go, and brings them there."""

    def __init__(
        self, ledger: Ledger, store: ArtifactStore, runner: RolloutsRunner, shut: Callable[[], frozenset[str]]
    ) -> None:
        """`shut`: the devices of which everything is revoked."""
        self._ledger, self._store, self._runner, self._shut = ledger, store, runner, shut

    async def look(self, asked: Asked) -> WaysBack:
        """Where everybody would go. Raises BadInput, ChangeRefused, LedgerError."""
        around = self._around()
        return await self._ledger.read(lambda c: ways_back(c, asked, around))

    async def carry_out(
        self,
        job: Job,
        asked: Asked,
        found: WaysBack,
        *,
        by: str,
        why: str,
        entered: Callable[[], None] = lambda: None,
    ) -> tuple[Finish, WaysBack]:
        """Take it back; how that ended, and what it came to. What is left is refused only once a rollout is entered
        that takes it back, in the same transaction; then `entered` is called. Raises RolloutError, LedgerError."""
        for line in (*told(found), f"rolling back {_listed(found.ways)}; {AT_ONCE}"):
            job.message(line)
        if not asked.everywhere:
            ended = await self._runner.begin(_wish(asked, found, by, why), job)
            entered()
            return await ended, found
        around, all_found = self._around(), [found]

        def wish(connection: Connection) -> Wish:
            """Who got it while this was asked for goes back too."""
            all_found.append(_together(found, still_leaving(connection, found.leaving, around)))
            return _wish(asked, all_found[-1], by, why)

        ended = await self._runner.take_back(found.leaving, wish, job, by=f"{by}: rollback")  # nobody else gets it
        entered()
        came_to = all_found[-1]
        late = {device: way for device, way in came_to.ways.items() if device not in found.ways}
        if late:
            job.message(f"also {_listed(late)}, which took it meanwhile")
        return await ended, came_to

    def _around(self) -> Surroundings:
        return Surroundings(self._runner.handed_out, self._shut(), self._store.has)


def told(found: WaysBack) -> Sequence[str]:
    """What an operator must know of those that are not rolled back, one line for all that have it in common."""
    spared = {device: f"release {release[:12]}, for which it waited" for device, release in found.spared.items()}
    return [
        f"{listed(names)} {verb} {why}"
        for verb, whys in (
            ("cannot go back:", found.stuck),
            ("left alone:", found.left_alone),
            ("will not get", spared),
        )
        for why, names in _alike(whys).items()
    ]


def _alike(whys: Mapping[str, str]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for device, why in sorted(whys.items()):
        alike.setdefault(why, []).append(device)
    return alike


def _listed(ways: Mapping[str, tuple[str, str]]) -> str:
    """The devices by what they leave; of many, the first and how many more."""
    by_release = _alike({device: left for device, (left, _) in ways.items()})
    return ", ".join(f"{listed(names)} from {left[:12]}" for left, names in by_release.items())


def _together(first: WaysBack, later: WaysBack) -> WaysBack:
    ways = {**later.ways, **first.ways}
    return replace(first, ways=ways, stuck={**later.stuck, **first.stuck})


def _wish(asked: Asked, found: WaysBack, by: str, why: str) -> Wish:
    wanted = {device: target for device, (_, target) in found.ways.items()}
    where = "".join(f", group {group}" for group in asked.groups)
    about = f"rollback of {', '.join(sorted(left[:12] for left in found.leaving))}{where}"
    return Wish(
        releases=wanted,
        policy=RolloutPolicy(gate=GatePolicy(max_failures=len(wanted), health=HealthPolicy(on=False))),
        by=by,
        about=about,
        why=why,
        # Whoever aborts the rollback wants what was served before it, rolled back or not.
        back_to={device: left for device, (left, _) in found.ways.items()},
        refuses=found.refuses(asked),
        spares=frozenset(found.spared),
    )
