"""The agent's own lines, as the controller may have them."""

from __future__ import annotations

import logging

import pytest

from edgewright_agent import recent_log
from edgewright_agent.recent_log import RecentLog, without_secrets


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.Logger("agent under test")
    made.addHandler(RecentLog("%(levelname)s %(message)s"))
    return made


def recent(logger: logging.Logger) -> tuple[str, ...]:
    (handler,) = logger.handlers
    assert isinstance(handler, RecentLog)
    return handler.lines()


def test_lines_are_kept_as_they_were_logged_the_oldest_first(logger: logging.Logger) -> None:
    logger.debug("too much")
    logger.info("generation %d", 7)
    try:
        raise ValueError("oops")
    except ValueError:
        logger.exception("it failed")
    lines = recent(logger)
    assert lines[:2] == ("INFO generation 7", "ERROR it failed")
    assert lines[-1] == "ValueError: oops"


def test_only_so_many_lines_of_only_so_many_characters_are_kept(logger: logging.Logger) -> None:
    for number in range(1000):
        logger.info("%d %s", number, "x" * 10_000)
    lines = recent(logger)
    assert (len(lines), len(lines[-1])) == (recent_log.MAX_LINES, 500)
    assert lines[-1].startswith("INFO 999 ")


KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"the file has {KEY}, which is odd", "the file has [hidden], which is odd"),
        (KEY[:40], "[hidden]"),
        ("enrol --token ewt1.eyJhIjoi_-x failed", "enrol --token [hidden] failed"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [hidden]"),
        ("init_listene: api_keys: ****Y910", "init_listene: api_keys: [hidden]"),
        ("a public certificate -----BEGIN CERTIFICATE-----", "a public certificate -----BEGIN CERTIFICATE-----"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(logger: logging.Logger, said: str, kept: str) -> None:
    assert without_secrets(said) == kept
    logger.info("%s", said)
    assert recent(logger) == (f"INFO {kept}",)
