"""Bad model files, signed like good ones, on the way to a running agent: refused by name, and the device serves on."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_contract import digest
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2
from tests import model_files
from tests.agent.small_controller import SmallController
from tests.agent.test_run import AgentProcess, Traffic
from tests.model_files import PAIRS, TENSORS, gguf_of, pair, tensor, text

OTHER = gguf_of([*PAIRS[:4], pair("tokenizer.chat_template", 8, text("{{ messages }} altered"))], TENSORS, bytes(999))
PINNED = digest.of_bytes(model_files.TEMPLATE.encode())


@pytest.fixture
def agent(tmp_path: Path, controller: SmallController) -> Iterator[AgentProcess]:
    """Enrolled and running, with nothing to serve yet."""
    made = AgentProcess(tmp_path / "device")
    enrolled = made.command("enroll", "--token", controller.token())
    assert enrolled.returncode == 0, enrolled.stderr
    made.start()
    yield made
    made.end()


@pytest.mark.attack("unsafe model files in a signed release")
def test_a_signed_release_with_an_unsafe_file_is_refused_by_file_and_reason(
    agent: AgentProcess, controller: SmallController
) -> None:
    good = controller.release("good", prefix="v1 ", files={"model.gguf": model_files.gguf(), "README.md": b"words"})
    controller.want(1, good)
    assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
    far = gguf_of(PAIRS, [tensor("w", (32, 4), 0, 1 << 40)], bytes(512))
    unsafe = [
        ("pickle", {"README.md": pickle.dumps([model_files.TEMPLATE], 4)}, "README.md: a pickle"),
        (
            "count",
            {"model.gguf": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0)},
            "model.gguf: 1152921504606846976",
        ),
        ("offset", {"model.gguf": far}, "model.gguf: a tensor lies at 1099511627776"),
        ("code", {"modeling.py": b"import os"}, "modeling.py: files of this kind"),
        ("remote", {"config.json": b'{"auto_map": {}}'}, "config.json: auto_map: refers to code"),
        ("native", {"LICENSE": b"\x7fELF\x02\x01\x01" + bytes(99)}, "LICENSE: a native library"),
    ]
    with Traffic(agent) as traffic:
        for generation, (name, files, said) in enumerate(unsafe, start=2):
            _refused(controller, generation, controller.release(name, prefix="v2 ", files=files), said, good)
        controller.want(9, controller.release("better", prefix="v3 "))
        assert controller.ended(9).outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert traffic.failures == []
    assert traffic.answered > 10
    assert agent.ask() == "v3 hello there"


@pytest.mark.attack("altered chat template")
def test_an_artifact_with_another_template_than_its_release_names_is_refused(
    agent: AgentProcess, controller: SmallController
) -> None:
    honest = {"model.gguf": model_files.gguf()}
    good = controller.release("good", prefix="v1 ", files=honest, chat_template=PINNED)
    controller.want(1, good)
    assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert agent.ask() == "v1 hello there"
    # Made, signed and published by who may: only the template is not the one that the director names.
    altered = controller.release("altered", prefix="v2 ", files={"model.gguf": OTHER}, chat_template=PINNED)
    _refused(controller, 2, altered, "its chat template is not the one", good)
    none = {"model.gguf": gguf_of(PAIRS[:4], [], b"")}
    without = controller.release("without", prefix="v3 ", files=none, chat_template=PINNED)
    _refused(controller, 3, without, "its chat template is not the one", good)
    assert agent.ask() == "v1 hello there"


@pytest.mark.attack("files exchanged in what was staged for the next start")
@pytest.mark.parametrize("plant", ["link", "extra", "bytes"])
def test_an_artifact_that_was_tampered_with_while_the_agent_was_down_does_not_serve(
    agent: AgentProcess, controller: SmallController, tmp_path: Path, plant: str
) -> None:
    first, second = (
        controller.release(name, prefix=f"{name} ", files={"model.gguf": model_files.gguf(name.encode())})
        for name in ("one", "two")
    )
    for generation, wanted in enumerate((first, second), start=1):
        controller.want(generation, wanted)
        assert controller.ended(generation).outcome == agent_pb2.OUTCOME_SUCCEEDED
    agent.end()
    folder = agent.state / "artifacts" / second[1].bundle
    if plant == "link":  # to the very same bytes, which could change at any moment
        shutil.move(folder / "model.gguf", tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", folder / "model.gguf")
    elif plant == "extra":
        (folder / "modeling.py").write_bytes(b"import os")
    else:
        shutil.copy(agent.state / "artifacts" / first[1].bundle / "model.gguf", folder / "new")
        os.replace(folder / "new", folder / "model.gguf")
    controller.away = True  # else the device may be mended before it has said what it found
    agent.start()
    assert agent.ask() == "one hello there", "the version before is whole, and serves"
    since = controller.heard
    controller.away = False
    status = controller.until(lambda status: status.outcome == agent_pb2.OUTCOME_FAILED, since)
    assert status.error == agent_pb2.ERROR_CODE_ARTIFACT_CORRUPT
    assert ("modeling.py" if plant == "extra" else "model.gguf") in status.reason
    status = controller.until(lambda status: status.outcome == agent_pb2.OUTCOME_SUCCEEDED)
    assert status.active_release == second[0].digest, "what was tampered with is fetched again"
    assert agent.ask() == "two hello there"


def _refused(
    controller: SmallController,
    generation: int,
    wanted: tuple[Release, ImageTarget],
    said: str,
    serving: tuple[Release, ImageTarget],
) -> None:
    controller.want(generation, wanted)
    status = controller.ended(generation)
    assert (status.outcome, status.error) == (agent_pb2.OUTCOME_FAILED, agent_pb2.ERROR_CODE_ARTIFACT_UNSAFE), status
    assert said in status.reason
    assert status.active_release == serving[0].digest
    assert wanted[0].digest in status.held_releases
