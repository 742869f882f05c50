"""The demo, as a newcomer sees it, ends with every claim held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.toolchain
@pytest.mark.timeout(900)
def test_every_claim_of_the_demo_holds(demo_model: Path, tmp_path: Path) -> None:
    # The state is kept between runs, as for a person who starts the demo twice; the first run compiles.
    facts = tmp_path / "facts.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgewright_controller.cli", "demo", "--exit"),
            *("--state", str(ROOT / ".cache" / "tests" / "demo"), "--facts", str(facts)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert json.loads(facts.read_text())["held"] is True
