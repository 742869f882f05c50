"""Care for artifacts by the agent's process and by its commands, with a real controller in reach."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from tests.agent.small_controller import SmallController
from tests.agent.test_download import MIB
from tests.agent.test_run import AgentProcess
from tests.agent.update_room import flip, harm


@pytest.fixture
def agent(tmp_path: Path, controller: SmallController) -> Iterator[AgentProcess]:
    """Serves a release of 3 MiB."""
    made = AgentProcess(tmp_path / "device")
    with open(made.config, "a") as config:
        config.write('[verify]\nevery = "never"\n')
    made.config.write_text(made.config.read_text().replace('reserve = "1MB"', 'reserve = "1MB"\nquota = "1GB"'))
    assert made.command("enroll", "--token", controller.token()).returncode == 0
    made.start()
    controller.want(1, controller.release("one", prefix="v1 ", size=3 * MIB))
    assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
    yield made
    made.end()


def weights(agent: AgentProcess, controller: SmallController) -> Path:
    return agent.state / "artifacts" / controller.status.active_artifact / "model.gguf"


def test_what_is_damaged_at_rest_is_found_and_mended_by_command_with_an_agent_and_without(
    agent: AgentProcess, controller: SmallController
) -> None:
    sound = agent.command("verify")
    assert (sound.returncode, sound.stdout.endswith(": sound\n")) == (0, True)
    file = weights(agent, controller)
    for running in (True, False):
        if not running:
            agent.end()
        harm(file, flip(MIB + 7))
        controller.sent = 0
        found = agent.command("verify")
        assert found.returncode == 1
        assert f"artifact {file.parent.name[:12]}: model.gguf: block " in found.stdout
        assert "changed since it was verified" in found.stdout
        mended = agent.command("repair")
        assert (mended.returncode, mended.stderr) == (0, ""), mended
        assert "model.gguf: mended" in mended.stdout
        assert ("the agent that runs here does it" in mended.stdout) is running
        assert 0 < controller.sent <= MIB, "only what was bad"
        assert agent.command("verify").returncode == 0
        assert agent.command("repair").stdout.endswith("nothing had to be mended\n")
        if running:
            assert agent.ask() == "v1 hello there"
            assert json.loads(agent.command("status", "--json").stdout)["damaged"] == []
    agent.start()
    assert agent.ask() == "v1 hello there"


def test_damage_that_cannot_be_mended_now_is_told_here_and_at_the_controller_until_it_is(
    agent: AgentProcess, controller: SmallController
) -> None:
    harm(weights(agent, controller), flip(MIB + 7))
    block = next(
        block.index
        for block in controller._folders[controller.status.active_artifact][1].blocks
        if block.path == "model.gguf" and block.offset <= MIB + 7 < block.offset + block.size
    )
    controller.mischief.flips[block] = 1000
    refused = agent.command("repair")
    assert refused.returncode == 1
    assert "is not what was signed" in refused.stderr
    told = controller.until(lambda status: bool(status.damaged))
    assert f"model.gguf: block {block}: changed since it was verified" in told.damaged[0]
    assert "damaged:   artifact" in agent.command("status").stdout
    controller.mischief.flips.clear()
    since = controller.heard
    assert agent.command("repair").returncode == 0
    controller.until(lambda status: not status.damaged, since)


def test_a_start_with_a_damaged_model_fetches_what_is_bad_only(
    agent: AgentProcess, controller: SmallController
) -> None:
    file = weights(agent, controller)
    agent.end()
    harm(file, flip(MIB + 7))
    controller.sent, since = 0, controller.heard
    agent.start()
    controller.until(
        lambda status: status.outcome == agent_pb2.OUTCOME_SUCCEEDED and status.step == agent_pb2.STEP_IDLE, since
    )
    assert 0 < controller.sent <= MIB
    assert agent.ask() == "v1 hello there"


def test_old_versions_stay_within_the_quota_and_come_back_without_a_byte(
    agent: AgentProcess, controller: SmallController
) -> None:
    wanted = {n: controller.release(f"version {n}", prefix=f"v{n} ", size=2 * MIB) for n in (2, 3, 4)}
    for generation, release in wanted.items():
        controller.want(generation, release)
        assert controller.ended(generation).outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert wanted[2][0].digest not in (controller.status.active_release, controller.status.previous_release)
    controller.sent = 0
    controller.want(5, wanted[2])
    assert controller.ended(5).outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert (controller.sent, agent.ask()) == (0, "v2 hello there")
