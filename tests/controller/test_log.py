"""The log: ids under their names, one line an event whoever said it, no secrets, for people and for programs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from edgewright_controller import log
from edgewright_controller.log import Format


@pytest.fixture(autouse=True)
def _the_tests_own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def test_as_json_each_event_is_one_document_with_the_ids_under_their_names() -> None:
    stream = io.StringIO()
    log.configure(Format.JSON, stream)
    log.of("edgewright_controller.here").info(
        "device failed", device="jetson-01", release="ab" * 32, rollout="rollout-3"
    )
    logging.getLogger("a.library").warning("it says %s", "something")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "device failed",
        "device": "jetson-01",
        "release": "ab" * 32,
        "rollout": "rollout-3",
        "level": "info",
        "logger": "edgewright_controller.here",
    }
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("it says something", "warning", "a.library")


@pytest.mark.parametrize("style", Format)
def test_secrets_are_not_written_and_nobody_can_forge_a_line(style: Format) -> None:
    stream = io.StringIO()
    log.configure(style, stream)
    logger = log.of("edgewright_controller.here")
    logger.info("enrolled", device="jetson-01", token="ewt1.c2VjcmV0")
    logger.warning("device failed", why="the disk is full\n2026-01-01 device succeeded \x1b[2J")
    first, second = stream.getvalue().splitlines()
    assert "jetson-01" in first
    assert "c2VjcmV0" not in first
    assert "the disk is full\\n2026" in second.replace("\\\\n", "\\n")
    assert "\x1b[2J" not in second


@pytest.mark.parametrize("style", Format)
def test_a_traceback_shows_where_but_not_the_values_that_stood_there(style: Format) -> None:
    stream = io.StringIO()
    log.configure(style, stream)
    try:
        _fail("-".join(["a", "private", "key"]))
    except RuntimeError:
        log.of("edgewright_controller.here").exception("a fault", rollout="rollout-1")
    assert "in _fail" in stream.getvalue()
    assert "rollout-1" in stream.getvalue()
    assert "a-private-key" not in stream.getvalue()


def _fail(secret: str) -> None:
    if secret:
        raise RuntimeError("it did not work")
