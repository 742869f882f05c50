"""Python 3.10 is the devices' Python, and has no controller, which needs 3.11.

The tests that put a real controller in front of the agent are left out there, in plain sight.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgewright_contract.v1 import agent_pb2

if TYPE_CHECKING:
    from tests.agent.small_controller import SmallController
    from tests.agent.test_run import AgentProcess

HERE = Path(__file__).parent
# Each imports a part of the controller, itself or through the small controller and the fleet of the trust tests.
WITH_CONTROLLER = (
    "test_identity.py",
    "test_run.py",
    "test_run_model_files.py",
    "test_run_mandate.py",
    "test_run_requests.py",
    "test_run_upkeep.py",
    "test_standby.py",
    "test_trust_attacks.py",
    "test_trust_mandate.py",
    "test_trust_store.py",
)

collect_ignore = list(WITH_CONTROLLER) if sys.version_info < (3, 11) else []


def pytest_report_header() -> str:
    """Say what is left out, at the top of the report."""
    return (
        f"left out before Python 3.11, which the controller needs: {', '.join(collect_ignore)}"
        if collect_ignore
        else ""
    )


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[SmallController]:
    """A small controller, whose device is not enrolled yet."""
    from tests.agent.small_controller import SmallController  # brings a part of the real one

    made = SmallController(tmp_path / "controller")
    yield made
    made.stop()


@pytest.fixture
def agent(tmp_path: Path, controller: SmallController) -> Iterator[AgentProcess]:
    """Serves v1 as generation 1."""
    from tests.agent.test_run import AgentProcess

    made = AgentProcess(tmp_path / "device")
    assert made.command("enroll", "--token", controller.token()).returncode == 0
    made.start()
    controller.want(1, controller.release("one", prefix="v1 "))
    assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
    yield made
    made.end()
