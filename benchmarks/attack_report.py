"""A pytest plugin: by the name of each attack, whether every test of it passed. Written to $EDGEWRIGHT_ATTACK_REPORT.

A test that was skipped, or broke before it came to the attack, counts as an attack that was won: nobody saw it refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

_refused: dict[str, bool] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how each phase of a test of an attack ended."""
    report = yield
    for marker in item.iter_markers("attack"):
        name = str(marker.args[0])
        _refused[name] = _refused.get(name, True) and report.passed
    return report


def pytest_sessionfinish() -> None:
    """Write what was noted."""
    Path(os.environ["EDGEWRIGHT_ATTACK_REPORT"]).write_text(json.dumps(_refused), encoding="utf-8")
