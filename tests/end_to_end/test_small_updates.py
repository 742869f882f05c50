"""The agent's own download from a real controller, over mutual TLS: an update costs what changed, or more."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgewright_controller.delivery import making
from tests.controller.delivery_pair import NUMBERS, Room, gguf, key, nudged
from tests.controller.service_rig import controller
from tests.end_to_end.fetcher import Fetcher


async def test_an_update_costs_what_changed_and_a_damaged_base_only_bytes(tmp_path: Path) -> None:
    state = tmp_path / "controller"
    room = Room(state)
    base = room.add({"model.gguf": gguf()})
    wanted = room.add({"model.gguf": gguf("a longer template, by more than the alignment", nudged(NUMBERS))})
    made = making.make(room.store, room.packs, key(wanted, base), base.block_index)
    async with controller(state) as fleet:
        fetcher = Fetcher(tmp_path / "agent", await fleet.enrol("jetson-01"))
        assert (await asyncio.to_thread(fetcher.pull, "gguf", base)).blocks == base.size
        came = (await asyncio.to_thread(fetcher.pull, "gguf", wanted, base.bundle)).blocks
        assert came == made.sent
        assert came < wanted.size / 3
        assert (fetcher.slots.artifact(wanted.bundle) / "model.gguf").read_bytes() == room.content(wanted, "model.gguf")

        fetcher.slots.remove(wanted.bundle)
        file = fetcher.slots.artifact(base.bundle) / "model.gguf"
        data = bytearray(file.read_bytes())
        data[-1000] ^= 1  # in what a block comes against
        file.chmod(0o644)
        file.write_bytes(data)
        again = (await asyncio.to_thread(fetcher.pull, "gguf", wanted, base.bundle)).blocks
        assert came < again < wanted.size
        fetcher.close()
