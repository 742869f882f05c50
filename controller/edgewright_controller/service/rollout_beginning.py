"""How a rollout begins: what it may take from others, what it leaves out, and then all of it in one transaction."""

from __future__ import annotations

from sqlalchemy import Connection

from edgewright_contract.v1 import operator_pb2
from edgewright_controller import log
from edgewright_controller.ledger import LedgerError, cordons, devices, rolled_back_on, rollouts
from edgewright_controller.rollout import RolloutError, RolloutState, Started, Superseded
from edgewright_controller.service.conflicts import conflicts
from edgewright_controller.service.job import Job
from edgewright_controller.service.live_rollouts import LiveRollout, LiveRollouts
from edgewright_controller.service.rollout_storing import created, refuse
from edgewright_controller.service.wish import Wish, does
from edgewright_controller.unix_time import unix_ms

_log = log.of(__name__)


async def begin(live: LiveRollouts, wish: Wish, job: Job) -> LiveRollout:
    """Start a rollout, which takes its devices over from those that run. The caller has the turn.

    When one that runs does just this, nothing is started, and `job` follows that one. Raises RolloutError when it may
    not begin, LedgerError.
    """
    wish = await _without_those_left_alone(live, wish, job)
    if wish.not_again:
        gone = await live.ledger.read(lambda c: rolled_back_on.refused(c, wish.releases))
        if gone:
            named = ", ".join(sorted({digest[:12] for digest in gone.values()}))
            raise RolloutError(f"release {named} was rolled back meanwhile; `apply --again` releases it")
    for one in live.running.values():
        if does(one.state, wish):
            if wish.refuses:  # more may be refused than by the one that runs
                await live.ledger.write(lambda c: refuse(c, wish, unix_ms(live.clock())))
            job.message(f"{one.state.spec.id} is doing this already; following it")
            live.follow(one, job)
            return one
    _check_conflicts(live, wish)
    begun = await _created(live, wish)
    name = begun.state.spec.id
    try:
        await live.event(name, Started())
    except LedgerError as error:
        # It is stored and goes on where it stands: the next tick begins with its first wave.
        _log.error("rollout waits", rollout=name, why=str(error))
        job.message(f"{name} waits for the ledger: {error}")
    live.follow(begun, job)
    live.news.set()
    return begun


async def _without_those_left_alone(live: LiveRollouts, wish: Wish, job: Job) -> Wish:
    """Who was cordoned or decommissioned since it was looked at what is to be done is left out."""

    def look(connection: Connection) -> dict[str, str]:
        rows = devices.every(connection, wish.releases)
        found = {row.id: "it was decommissioned" for row in rows if row.decommissioned_ms is not None}
        return found | {
            name: f"cordoned by {row.words}" for name, row in cordons.every(connection, wish.releases).items()
        }

    left_out = await live.ledger.read(look)
    for device, why in left_out.items():
        job.message(f"{device} is left as it is: {why}")
    if left_out and not wish.releases.keys() - left_out:
        raise RolloutError("\n".join(f"{device} is left as it is: {why}" for device, why in left_out.items()))
    return wish.without(left_out) if left_out else wish


def _check_conflicts(live: LiveRollouts, wish: Wish) -> None:
    if wish.supersede or wish.undoes:
        return
    parted = [one for one in conflicts(_states(live), wish.releases) if one.left]
    if parted:
        raise RolloutError("\n".join(one.refusal for one in parted))


def _states(live: LiveRollouts) -> list[RolloutState]:
    return [one.state for one in live.running.values()]


async def _created(live: LiveRollouts, wish: Wish) -> LiveRollout:
    name, now = await live.ledger.read(rollouts.next_id), live.clock()
    takes = Superseded(name, frozenset(wish.releases) | wish.spares)
    state = await live.together(dict.fromkeys(live.running, takes), lambda c: created(c, name, wish, now))
    begun = live.running[name] = LiveRollout(state, wish.undoes, wish.by_itself)
    begun.news.about = operator_pb2.RolloutView(what=wish.about, by=wish.by, why=wish.why, created_unix_ms=unix_ms(now))
    _log.info("rollout begins", rollout=name, what=wish.about, by=wish.by, devices=len(wish.releases))
    return begun
