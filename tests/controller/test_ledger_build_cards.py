"""What was measured on builds is kept by key, also for those that were refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from edgewright_controller.ledger import Ledger, build_cards
from edgewright_controller.ledger.build_cards import BuildCardRow
from tests.controller.ledger_rows import opened

PASSED = BuildCardRow("k" * 64, "a" * 64, '{"gate": 1}', passed=True, made_ms=5)
REFUSED = BuildCardRow("r" * 64, "b" * 64, '{"gate": 1}', passed=False, made_ms=6)


def _keep(ledger: Ledger, *rows: BuildCardRow) -> None:
    def put(connection: Connection) -> None:
        for row in rows:
            build_cards.put(connection, row)

    ledger.write_now(put)


def test_what_was_measured_is_there_by_key_and_replaced_by_a_new_measuring(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        _keep(ledger, PASSED, REFUSED)
        assert ledger.read_now(build_cards.every) == {PASSED.build_key: PASSED, REFUSED.build_key: REFUSED}
        assert ledger.read_now(lambda c: build_cards.get(c, REFUSED.build_key)) == REFUSED
        assert ledger.read_now(lambda c: build_cards.get(c, "n" * 64)) is None
        again = replace(REFUSED, passed=True, made_ms=7)
        ledger.write_now(lambda c: build_cards.put(c, again))
        assert ledger.read_now(lambda c: build_cards.every(c, [REFUSED.build_key])) == {again.build_key: again}


def test_the_report_card_follows_for_what_was_measured(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: build_cards.put(c, PASSED))
        assert ledger.write_now(lambda c: build_cards.put_card(c, PASSED.build_key, "{}", "d" * 64))
        assert not ledger.write_now(lambda c: build_cards.put_card(c, "n" * 64, "{}", None))
        found = replace(PASSED, card="{}", provenance="d" * 64)
        assert ledger.read_now(lambda c: build_cards.get(c, PASSED.build_key)) == found


def test_an_artifact_is_spoken_for_by_the_newest_build_that_passed(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        newer = replace(PASSED, build_key="n" * 64, made_ms=9)
        _keep(ledger, PASSED, newer, REFUSED)
        assert ledger.read_now(lambda c: build_cards.of_artifact(c, PASSED.artifact)) == newer
        assert ledger.read_now(lambda c: build_cards.of_artifact(c, REFUSED.artifact)) is None
