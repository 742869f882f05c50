"""Which stages run at the same time, and within which bounds."""

from __future__ import annotations

import asyncio

import pytest

from edgewright_controller.compile import stage_bounds
from edgewright_controller.compile.room import MAX_PASSED, Room, Waiting, admitted
from tests.controller.small_fleet import SMOLLM2


def test_the_first_that_there_is_room_for_goes() -> None:
    line = [Waiting(8), Waiting(3)]
    assert admitted(line, 10, 2, idle=False) == 0
    assert admitted(line, 5, 2, idle=False) == 1
    assert admitted(line, 2, 2, idle=False) is None
    assert admitted(line, 10, 0, idle=False) is None
    assert admitted([], 10, 2, idle=True) is None


def test_what_is_larger_than_all_the_room_runs_when_nothing_else_does() -> None:
    assert admitted([Waiting(100)], 10, 2, idle=True) == 0
    assert admitted([Waiting(100)], 10, 2, idle=False) is None


def test_one_that_was_passed_too_often_is_waited_for() -> None:
    assert admitted([Waiting(8, MAX_PASSED - 1), Waiting(3)], 5, 2, idle=False) == 1
    assert admitted([Waiting(8, MAX_PASSED), Waiting(3)], 5, 2, idle=False) is None


class Crowd:
    """Stages that say when they run and end when they are told."""

    def __init__(self, total_bytes: int, places: int) -> None:
        self.room = Room(lambda: total_bytes, places)
        self.running: list[str] = []
        self.waited: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str, needs: int) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, needs))
        await asyncio.sleep(0)

    async def goes(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)

    async def _run(self, name: str, needs: int) -> None:
        async with self.room.take(needs, lambda: self.waited.append(name)):
            self.running.append(name)
            await self.ends[name].wait()
            self.running.remove(name)


async def test_a_small_stage_does_not_wait_behind_a_large_one() -> None:
    crowd = Crowd(total_bytes=10, places=3)
    await crowd.comes("first", 6)
    await crowd.comes("large", 8)
    await crowd.comes("small", 3)
    assert crowd.running == ["first", "small"]
    assert crowd.waited == ["large"]
    await crowd.goes("first")
    assert crowd.running == ["small"]
    await crowd.goes("small")
    assert crowd.running == ["large"]


async def test_one_that_gives_up_waiting_or_running_leaves_its_room_to_others() -> None:
    crowd = Crowd(total_bytes=10, places=1)
    await crowd.comes("first", 6)
    await crowd.comes("second", 6)
    await crowd.comes("third", 6)
    crowd.tasks["second"].cancel()
    crowd.tasks["first"].cancel()
    await asyncio.wait([crowd.tasks["first"], crowd.tasks["second"]])
    await asyncio.sleep(0)
    assert crowd.running[-1:] == ["third"]
    await crowd.goes("third")
    await crowd.comes("fourth", 10)
    assert "fourth" in crowd.running


@pytest.mark.parametrize("script", ["gguf_convert", "gguf_quantise", "mlx_convert", "onnx_build", "something_new"])
def test_bounds_grow_with_the_model_and_the_operators_own_count(script: str) -> None:
    bounds = stage_bounds.of(script, SMOLLM2)
    assert bounds.expected_bytes < bounds.most_bytes
    assert bounds.deadline_s >= stage_bounds.SHORTEST_DEADLINE_S
    own = stage_bounds.of(script, SMOLLM2, most_bytes=100 << 20, deadline_s=7.0)
    assert (own.most_bytes, own.deadline_s) == (100 << 20, 7.0)
    assert own.expected_bytes <= 100 << 20
