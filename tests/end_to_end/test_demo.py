"""The demo and the README's tour, as a newcomer goes through them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.room import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
TOUR = re.compile(r"<!-- tour.*?-->(.*?)^## ", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def tour() -> str:
    """The shell lines of the README's tour, in order."""
    section = TOUR.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert section, "README.md has no tour"
    return "\n".join(BLOCK.findall(section.group(1)))


@pytest.mark.toolchain
@pytest.mark.timeout(2400)
def test_every_claim_of_the_demo_holds_and_the_tour_works_as_printed(demo_model: Path, tmp_path: Path) -> None:
    # The state is kept between runs, as for a person who starts the demo twice; the first run compiles.
    facts, log = tmp_path / "facts.json", tmp_path / "demo.log"
    with log.open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "edgewright_controller.cli", "demo", "--facts", str(facts)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: demo.poll() is not None or "until Ctrl-C" in log.read_text(errors="replace"), "the demo's end", 1800
        )
        told = log.read_text()
        assert demo.poll() is None, told
        assert "✗" not in told, told
        assert json.loads(facts.read_text())["held"] is True

        script = "set -eux\n" + tour()
        lines = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, env=_plain(), timeout=400
        )
        assert lines.returncode == 0, lines.stdout + lines.stderr
        assert '"content":' in lines.stdout, lines.stdout
        assert "held" in lines.stdout, lines.stdout
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 0, log.read_text()


def _plain() -> dict[str, str]:
    """The environment of a newcomer's second terminal."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("EDGEWRIGHT_", "VIRTUAL_ENV"))}
