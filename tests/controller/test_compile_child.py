"""A build stage's child: whatever it does, it ends, nothing of it stays, and its last words are kept."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile import child, child_memory
from edgewright_controller.compile.child import Stage, StageFailed

IMPORTS = "import os, sys, subprocess, time\nimport stage"


class Bench:
    """A folder where a test writes a stage and runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = io.BytesIO()
        self.said: list[tuple[float, str]] = []
        self.held: list[int] = []
        self.spoke = asyncio.Event()
        shutil.copy(child.CHILDREN / "stage.py", folder / "stage.py")

    def stage(self, body: str, deadline_s: float = 30, most_bytes: int | None = None) -> Stage:
        script = self.folder / "work.py"
        text = textwrap.indent(textwrap.dedent(body).strip(), "    ")
        script.write_text(f"{IMPORTS}\ndef work(request, say):\n{text}\nsys.exit(stage.run(work))\n")
        return Stage(script, sys.executable, deadline_s, most_bytes=most_bytes)

    async def run(self, stage: Stage, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await child.run(stage, request or {}, self.folder, self.log, self._say, holds=self.held.append)

    def _say(self, done: float, say: str) -> None:
        self.said.append((done, say))
        self.spoke.set()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def _gone(pid: int) -> bool:
    for _ in range(600):
        if not _alive(pid):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_stage_gets_its_request_reports_and_gives_a_result(bench: Bench) -> None:
    result = await bench.run(
        bench.stage("say(0.5, 'half')\nprint('to the log')\nreturn {'twice': 2 * request['n']}"), {"n": 21}
    )
    assert result == {"twice": 42}
    assert bench.said == [(0.5, "half")]
    assert bench.log.getvalue() == b"to the log\n"


async def test_what_a_stage_says_of_its_failure_is_the_reason(bench: Bench) -> None:
    with pytest.raises(StageFailed) as caught:
        await bench.run(bench.stage("raise stage.StageError('the model has no layers')"))
    assert caught.value.reason == "the model has no layers"
    assert caught.value.exit == 1


async def test_a_crash_in_the_middle_is_told_with_the_last_lines(bench: Bench) -> None:
    with pytest.raises(StageFailed) as caught:
        await bench.run(
            bench.stage(
                "for n in range(50): print('line', n, file=sys.stderr, flush=True)\nsys.stderr.flush(); os.abort()"
            )
        )
    assert caught.value.exit == -signal.SIGABRT
    assert "SIGABRT" in caught.value.reason
    assert caught.value.last_lines[-1] == "line 49"
    assert len(caught.value.last_lines) == child.LAST_LINES


async def test_status_0_without_a_result_is_a_failure(bench: Bench) -> None:
    with pytest.raises(StageFailed, match="no result"):
        await bench.run(bench.stage("os._exit(0)"))


async def test_an_interpreter_that_is_not_there_is_named(bench: Bench) -> None:
    stage = Stage(bench.stage("pass").script, "/nowhere/python", 5)
    with pytest.raises(StageFailed, match="/nowhere/python"):
        await bench.run(stage)


GRANDCHILD = """
sleeper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open('pid', 'w').write(str(sleeper.pid))
say(0.1, 'started')
"""


async def test_past_its_deadline_a_stage_is_killed_with_what_it_started(bench: Bench) -> None:
    started = time.monotonic()
    with pytest.raises(StageFailed, match="not finished after 15 s"):
        await bench.run(bench.stage(GRANDCHILD + "time.sleep(600)", deadline_s=15))
    assert time.monotonic() - started < 60
    assert await _gone(int((bench.folder / "pid").read_text()))


HOLD = """
import mmap
blocks = []
for _ in range(request['mb']):
    block = mmap.mmap(-1, 1 << 20)
    block.write(b'x' * (1 << 20))
    blocks.append(block)
say(0.5, 'holding')
time.sleep(request['s'])
return {}
"""


async def test_a_stage_that_stays_within_its_memory_is_left_alone_and_one_that_does_not_is_killed(bench: Bench) -> None:
    stage = bench.stage(HOLD, deadline_s=60, most_bytes=150 << 20)
    assert await bench.run(stage, {"mb": 40, "s": 1.5}) == {}
    assert 40 << 20 < max(bench.held) < 150 << 20
    with pytest.raises(StageFailed, match="needed more than 157,286,400 bytes of memory; `stage_memory` under"):
        await bench.run(stage, {"mb": 250, "s": 600})


async def test_what_a_stage_started_counts_as_its_own(bench: Bench) -> None:
    body = "inner = \"import time; kept = b'x' * (200 << 20); time.sleep(600)\"\n"
    body += "subprocess.run([sys.executable, '-c', inner])\nreturn {}"
    with pytest.raises(StageFailed, match="needed more than 157,286,400 bytes"):
        await bench.run(bench.stage(body, deadline_s=60, most_bytes=150 << 20))


async def test_pages_of_a_mapped_file_are_not_held(bench: Bench) -> None:
    (bench.folder / "weights").write_bytes(bytes(200 << 20))
    body = "import mmap\nfile = open('weights', 'rb')\nmapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
    body += "total = sum(mapped[at] for at in range(0, len(mapped), 4096))\ntime.sleep(1.5)\nreturn {'total': total}"
    assert await bench.run(bench.stage(body, deadline_s=60, most_bytes=150 << 20)) == {"total": 0}


async def test_a_stage_that_somebody_else_killed_says_that_it_was_not_for_memory(bench: Bench) -> None:
    counts = child_memory.oom_kills() is not None
    said = "from outside, .* not do it for want of memory" if counts else ".* if the system had no memory left"
    with pytest.raises(StageFailed, match=f"killed by SIGKILL {said}"):
        await bench.run(bench.stage("import signal\nos.kill(os.getpid(), signal.SIGKILL)"))


def test_a_stage_that_the_kernel_killed_says_so_and_what_to_do() -> None:
    said = child.killed(held_bytes=5_000_000_000, oom_kills=3, now=4)
    assert said.startswith("the system killed it for want of memory, when it held 5,000,000,000 bytes")
    assert "`memory` under [builds]" in said
    assert "if the system had no memory left" in child.killed(held_bytes=0, oom_kills=None, now=None)


async def test_cancelling_kills_the_stage_with_what_it_started(bench: Bench) -> None:
    running = asyncio.create_task(bench.run(bench.stage(GRANDCHILD + "time.sleep(600)")))
    await asyncio.wait_for(bench.spoke.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await _gone(int((bench.folder / "pid").read_text()))


async def test_what_a_finished_stage_left_running_does_not_hold_the_build(bench: Bench) -> None:
    assert await bench.run(bench.stage(GRANDCHILD + "return {}", deadline_s=60)) == {}
    assert await _gone(int((bench.folder / "pid").read_text()))


CONTROLLER = """
import asyncio, io, sys
from pathlib import Path
from edgewright_controller.compile import child, child_memory
stage = child.Stage(Path(sys.argv[1]), sys.executable, 60)
asyncio.run(child.run(stage, {}, Path(sys.argv[2]), io.BytesIO(), lambda done, say: None))
"""


async def test_a_stage_ends_when_the_controller_is_killed(bench: Bench) -> None:
    stage = bench.stage(GRANDCHILD + "open('own', 'w').write(str(os.getpid()))\ntime.sleep(600)")
    controller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONTROLLER, str(stage.script), str(bench.folder)
    )
    try:
        for _ in range(1200):
            if (bench.folder / "own").exists() and (bench.folder / "own").read_text():
                break
            await asyncio.sleep(0.05)
        own = int((bench.folder / "own").read_text())
        assert _alive(own)
    finally:
        controller.kill()
        await controller.wait()
    assert await _gone(own)
    assert await _gone(int((bench.folder / "pid").read_text()))


async def test_no_credential_of_the_controller_reaches_a_stage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    seen = await bench.run(bench.stage("return dict(os.environ)"))
    assert not any("secret" in value for value in seen.values())
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HOME"] == str(bench.folder)


async def test_a_progress_bar_leaves_one_line_in_the_log(bench: Bench) -> None:
    await bench.run(bench.stage("for n in range(500): sys.stderr.write(f'\\r{n} of 499')\nreturn {}"))
    assert bench.log.getvalue() == b"499 of 499\n"


async def test_a_log_is_bounded_and_the_stage_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MAX_LOG_BYTES", 10_000)
    await bench.run(bench.stage("for n in range(100_000): print('line', n)\nreturn {}"))
    assert len(bench.log.getvalue()) < 10_100
    assert b"reached its size" in bench.log.getvalue()
