"""The main job, measured: section [main] of the figures.

usage: python benchmarks/demo.py [--cold]

Runs `edgewright demo` as a newcomer would, and reads what it and the operating system say. Each figure is one JSON
line. With --cold the whole of `make demo ARGS=--exit` is timed as well, in a clone without an environment or caches;
that takes ten minutes and more.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from edgewright_controller.demo import traffic
from edgewright_controller.demo.fleet import DemoFleet
from edgewright_controller.demo.story import MODEL

ROOT = Path(__file__).resolve().parent.parent
IDLE_S = 120.0
SETTLE_S = 10.0
HOST = f"{os.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB, CPU only"


def figure(name: str, value: float, unit: str, baseline: str = "", ratio: float | None = None) -> None:
    print(
        json.dumps(
            {"name": name, "value": round(value, 3), "unit": unit, "baseline": baseline, "ratio": ratio, "host": HOST}
        ),
        flush=True,
    )


class Demo:
    """One run of `edgewright demo --only-answers` that stays up after its answers."""

    def __init__(self, state: Path) -> None:
        self._facts = state.parent / f"{state.name}.json"
        self._facts.unlink(missing_ok=True)
        self._log = state.parent / f"{state.name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "edgewright_controller.cli", "demo", "--only-answers"),
                    *("--state", str(state), "--facts", str(self._facts), "--manifests", str(ROOT / "manifests")),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def facts(self, timeout_s: float = 900.0) -> dict[str, Any]:
        """What the demo measured, once it says so. RuntimeError when it fails."""
        deadline = time.monotonic() + timeout_s
        while not self._facts.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the demo failed:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)
        facts: dict[str, Any] = json.loads(self._facts.read_text())
        if not facts["held"]:
            raise RuntimeError(f"a claim of the demo did not hold:\n{self._log.read_text()[-3000:]}")
        return facts

    def end(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


class PeakGrowth:
    """The largest growth of a process's memory over what it had at the start, sampled."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._before = process.memory_info().rss
        self._peak = self._before
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def end(self) -> float:
        """MB of growth."""
        self._done.set()
        self._thread.join()
        return (self._peak - self._before) / 1e6


def idle_agent(state: Path) -> None:
    """Memory and CPU of an agent process, its engine apart, at the default intervals with nobody asking."""
    fleet = DemoFleet(state, {"jetson-01": "gguf"}, intervals={})
    try:
        fleet.start()
        device = fleet.devices[0]
        wait_until(lambda: answers(device.endpoint), "the device's first answer", 120)
        agent = psutil.Process(fleet.children.named(device.id).pid)
        time.sleep(SETTLE_S)  # what the update left behind is given back
        before = sum(agent.cpu_times()[:2])
        time.sleep(IDLE_S)
        used = sum(agent.cpu_times()[:2]) - before
        figure("agent.idle_rss_mb", agent.memory_info().rss / 1e6, "MB")
        figure("agent.idle_cpu_percent", 100 * used / IDLE_S, "%")
    finally:
        fleet.stop()


def answers(endpoint: str) -> bool:
    """Whether somebody answers at this endpoint."""
    try:
        return bool(traffic.ask(endpoint, MODEL, "Name a colour.", max_tokens=4).text)
    except traffic.AnswerError:
        return False


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float) -> None:
    """RuntimeError naming `what` when it does not hold in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come in {timeout_s:.0f} s")
        time.sleep(0.2)


def apply(state: Path, manifest: str) -> None:
    """One `edgewright apply` as an operator types it."""
    subprocess.run(
        [
            *(sys.executable, "-m", "edgewright_controller.cli", "apply", str(ROOT / "manifests" / manifest)),
            *("--config", str(state / "controller" / "operator" / "client.toml"), "--again"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )


def warm(room: Path) -> None:
    """Environment made, nothing compiled; then the same with artifacts cached."""
    state = room / "fleet"
    demo = Demo(state)
    try:
        figure("demo.warm_env_s", demo.facts()["answers_s"], "s")
    finally:
        demo.end()
    demo = Demo(state)
    try:
        facts = demo.facts()
        figure("demo.cached_s", facts["answers_s"], "s")
        start = time.monotonic()
        apply(state, "demo.toml")
        figure("apply.unchanged_s", time.monotonic() - start, "s", "the whole command, interpreter start included")
        growth = PeakGrowth(psutil.Process(facts["controller_pid"]))
        apply(state, "demo-next.toml")
        figure("controller.rss_growth_per_model_mb", growth.end(), "MB", "three artifacts built, published and pulled")
    finally:
        demo.end()
    idle_agent(state)


def cold(room: Path) -> None:
    """All of `make demo ARGS=--exit` in a clone, with an empty home and no cached wheels."""
    clone = room / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    home = room / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "VIRTUAL_ENV"))}
    start = time.monotonic()
    subprocess.run(
        ["make", "demo", "ARGS=--exit"],
        check=True,
        cwd=clone,
        env=environment | {"HOME": str(home), "PIP_CACHE_DIR": str(room / "pip")},
        stdout=sys.stderr,
        stdin=subprocess.DEVNULL,
    )
    figure("demo.cold_s", time.monotonic() - start, "s")


def main() -> None:
    room = Path(tempfile.mkdtemp(prefix="edgewright-bench-"))
    try:
        if "--cold" in sys.argv[1:]:
            cold(room)
        warm(room)
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    main()
