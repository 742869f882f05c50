"""Watching a change: late watchers see it as it is, slow ones cost nothing, and it ends for all."""

from __future__ import annotations

import asyncio

import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.service.job import Job

Event = operator_pb2.ApplyEvent


def build(key: str, fraction: float) -> operator_pb2.ApplyEvent:
    return Event(build=operator_pb2.BuildProgress(build_key=key, fraction=fraction))


def ended() -> operator_pb2.ApplyEvent:
    return Event(result=operator_pb2.ApplyResult(succeeded=True))


async def test_a_late_watcher_sees_the_newest_of_each_and_the_result() -> None:
    job = Job()
    for event in (build("a", 0.1), build("b", 0.5), build("a", 0.9), Event(message="hello"), ended()):
        job.say(event)
    seen = [event async for event in job.follow()]
    assert seen == [build("b", 0.5), build("a", 0.9), Event(message="hello"), ended()]


async def test_a_watcher_from_the_start_sees_each_event_as_it_comes() -> None:
    job = Job()
    watching = asyncio.create_task(_all(job))
    for fraction in (0.1, 0.2, 0.3):
        job.say(build("a", fraction))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    job.say(ended())
    seen = await asyncio.wait_for(watching, 5)
    assert [event.build.fraction for event in seen[:-1]] == [0.1, 0.2, 0.3]
    assert seen[-1].HasField("result")


async def test_a_watcher_that_leaves_changes_nothing_for_the_others() -> None:
    job = Job()
    leaving = asyncio.create_task(_all(job))
    staying = asyncio.create_task(_all(job))
    await asyncio.sleep(0)
    leaving.cancel()
    job.say(ended())
    assert (await asyncio.wait_for(staying, 5))[-1].HasField("result")


async def test_nothing_is_said_after_the_result() -> None:
    job = Job()
    job.say(ended())
    with pytest.raises(ValueError, match="ended"):
        job.say(build("a", 1.0))


async def _all(job: Job) -> list[operator_pb2.ApplyEvent]:
    return [event async for event in job.follow()]
