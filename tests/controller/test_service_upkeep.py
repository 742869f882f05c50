"""What a controller does by itself from time to time."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import select

from edgewright_controller.ledger import Ledger, tables, telemetry
from tests.controller.broker_room import until
from tests.controller.ledger_rows import envelope
from tests.controller.service_rig import controller

HOUR_MS = 3_600_000


async def test_reports_older_than_the_setting_are_forgotten_and_the_newest_stays_shown(tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    (tmp_path / "state").mkdir()
    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    ages = {1: 50, 2: 49, 3: 47}
    batch = [("jetson-01", envelope("jetson-01", seq), now_ms - hours * HOUR_MS) for seq, hours in ages.items()]
    batch.append(("mac-01", envelope("mac-01", 1), now_ms - 49 * HOUR_MS))
    ledger.write_now(lambda c: telemetry.store(c, batch))

    def kept() -> set[tuple[str, int]]:
        rows = ledger.read_now(lambda c: c.execute(select(tables.telemetry.c.device, tables.telemetry.c.seq)).all())
        return {(device, seq) for device, seq in rows}

    assert len(kept()) == 4
    async with controller(tmp_path / "state"):
        await until(lambda: kept() == {("jetson-01", 3)}, "old reports to be forgotten")
        assert set(ledger.read_now(telemetry.latest)) == {"jetson-01", "mac-01"}
    ledger.close()
