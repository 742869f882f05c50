"""`edgewright-agent import` of a file that was carried to a real agent, with no controller to ask."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from edgewright_agent.mandate_folder import MandateFolder
from edgewright_contract import block_index, bundle
from edgewright_contract.block_index import Block
from tests.agent.small_controller import FLEET, SmallController
from tests.agent.test_run import COMMAND, AgentProcess
from tests.carried_files import written


@pytest.mark.attack("carried files that are damaged, or of others")
def test_a_device_without_a_network_is_updated_from_one_file_and_by_nothing_less(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ", size=3 << 20)
    files = controller.content(tmp_path / "stick", second) / "artifacts" / second[1].bundle
    good, theirs = controller.mandate(3, second), controller.mandate(3, second, device="jetson-02")

    def carried(name: str, mandate: bytes, **how: str) -> Path:
        return written(tmp_path / name, files, mandate, **{"fleet": FLEET, "release": second[0].digest, **how})

    # The first of its blocks are those of the second.
    weights = (files / "model.gguf").read_bytes()
    third = controller.release("three", prefix="v3 ", files={"model.gguf": weights[: 2 << 20] + b"more" * 1000})
    newer = controller.content(tmp_path / "other", third) / "artifacts" / third[1].bundle
    held = {block.sha256 for block in _blocks(files)} & {block.sha256 for block in _blocks(newer)}
    assert len(held) >= 2
    release = {"fleet": FLEET, "release": third[0].digest}
    less = written(
        tmp_path / "less", newer, controller.mandate(4, third), base=second[1].bundle, without=held, **release
    )
    assert less.stat().st_size < (1 << 20)

    file = carried("it.edgewright", good)
    data = file.read_bytes()
    controller.stop()

    bad = {
        "was cut off": data[:-1000],
        "not what was signed": data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
        "not a file that": b"rubbish" * 100,
        "is for device jetson-02": carried("a", theirs, device="jetson-02").read_bytes(),
        # Its head lies; the mandate is what counts.
        "for 'jetson-02'": carried("b", theirs).read_bytes(),
        "is for fleet other": carried("c", good, fleet="other").read_bytes(),
        "has no mandate in it": carried("d", b"").read_bytes(),
        "not a mandate": carried("e", b"rubbish").read_bytes(),
        "which is not on this device": less.read_bytes(),
    }
    for said, content in bad.items():
        file.write_bytes(content)
        done = agent.command("import", str(file))
        assert (done.returncode, said in done.stderr) == (1, True), (said, done)
        assert len(done.stderr.splitlines()) == 1
    assert agent.ask() == "v1 hello there"
    assert list((agent.state / "mandates").glob("*.*")) == []

    file.write_bytes(data)
    done = agent.command("import", str(file))
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert any(line.startswith("checked ") and line.endswith(" MB") for line in told)
    assert f"accepted: generation 3, release {second[0].digest[:12]}" in told
    assert told[-1] == f"release {second[0].digest[:12]} serves"
    assert agent.ask() == "v2 hello there"

    done = agent.command("import", str(less))
    assert done.returncode == 0, done.stderr
    assert agent.ask() == "v3 hello there"


def _blocks(files: Path) -> tuple[Block, ...]:
    listed = bundle.from_folder(files)
    return block_index.parse(block_index.cut(listed, files), listed).blocks


def test_an_import_that_is_interrupted_goes_on_when_the_agent_and_the_stick_are_back(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ", size=3 << 20)
    files = controller.content(tmp_path / "stick", second) / "artifacts" / second[1].bundle
    file = written(tmp_path / "it.edgewright", files, fleet=FLEET, release=second[0].digest)
    # The mandate lies beside the file, where `mandate sign` left it.
    (tmp_path / "it.edgewright.mandate").write_bytes(controller.mandate(2, second))
    controller.stop()
    shutil.rmtree(tmp_path / "stick")
    agent.end()
    done = agent.command("import", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the agent installs it when it starts\n")
    assert MandateFolder(agent.state).content() == file

    away = file.rename(tmp_path / "away")
    agent.start()  # it cannot go on, and serves
    assert agent.ask() == "v1 hello there"
    agent.end(signal.SIGKILL)
    away.rename(file)
    agent.start()
    command = [*COMMAND, "import", "--config", str(agent.config), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert agent.ask() == "v2 hello there"
