"""What a device says of its download: to the controller, and to whoever looks into its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_agent import cli, status
from edgewright_agent.lifecycle_state import Lifecycle, Outcome, Step
from edgewright_agent.state_lock import StateLock
from edgewright_agent.state_store import StateStore
from edgewright_agent.status import Running
from edgewright_contract.v1 import agent_pb2

FETCHING = Lifecycle(step=Step.DOWNLOADING, generation=7, release="a" * 64, outcome=Outcome.IN_PROGRESS)
RUNNING = Running(
    done_bytes=30_000_000,
    total_bytes=98_000_000,
    bytes_per_s=1e6,
    remaining_s=68,
    trouble="nobody answers",
    damaged=["x" * 900] * 20,
)


def composed(state: Lifecycle) -> agent_pb2.DeviceStatus:
    return status.compose(state, lambda _: None, RUNNING)


def test_the_controller_is_told_rate_and_remaining_time_while_bytes_come() -> None:
    told = composed(FETCHING)
    assert (told.done_bytes, told.total_bytes, told.bytes_per_s, told.remaining_s) == (
        30 * 10**6,
        98 * 10**6,
        10**6,
        68,
    )
    assert told.reason == "nobody answers"
    waiting = composed(Lifecycle(step=Step.DOWNLOADING, generation=7, paused=True))
    assert (waiting.downloads_paused, waiting.done_bytes) == (True, 30 * 10**6)
    assert (waiting.bytes_per_s, waiting.remaining_s) == (0, 0)
    idle = composed(Lifecycle(generation=7))
    assert (idle.done_bytes, idle.bytes_per_s, idle.remaining_s, idle.reason) == (0, 0, 0, "")
    assert "nobody" not in waiting.reason, "a pause explains more"


def test_what_is_damaged_is_told_within_bounds() -> None:
    assert [len(line) for line in composed(FETCHING).damaged] == [200] * status.MAX_DAMAGED


@pytest.fixture
def device(tmp_path: Path) -> Path:
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(FETCHING)
    store.close()
    status.leave_progress(tmp_path, composed(FETCHING))
    return tmp_path


def test_whoever_looks_into_the_folder_of_a_running_agent_sees_it_too(
    device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (device / "agent.toml").write_text('state = "."')
    with StateLock(device):
        read = status.read(device)
        assert (read["done_bytes"], read["remaining_s"], read["reason"]) == (30 * 10**6, 68, "nobody answers")
        cli.main(["status", "--config", str(device / "agent.toml")])
    assert "download:  30.0 MB of 98.0 MB, 1.0 MB/s, 68 s left\n" in capsys.readouterr().out
    read = status.read(device)
    assert (read["total_bytes"], read["reason"]) == (0, ""), "nobody fetches"


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", '{"generation": 6, "done_bytes": 1}', '{"generation": 7}'])
def test_what_another_download_left_or_nobody_wrote_is_not_told(device: Path, left: str) -> None:
    (device / status.PROGRESS_FILE).write_text(left)
    with StateLock(device):
        assert status.read(device)["done_bytes"] == 0


def test_what_was_verified_at_rest_is_read_without_an_agent(device: Path) -> None:
    read = status.read(device)
    assert (read["verified_unix"], read["damaged"], read["not_mended"]) == (0.0, [], [])
