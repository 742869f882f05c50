"""Certificates and the audit log in the ledger: revoked is for ever, and what was done cannot be changed unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text, update

from edgewright_controller.ledger import audit, certificates, migrate, tables
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from tests.controller.ledger_rows import opened

FIRST = CertificateRow("a1", DEVICE, "jetson-01", "k" * 64, issued_ms=10, not_after_ms=1_000)
SECOND = replace(FIRST, serial="a2", issued_ms=20, not_after_ms=2_000)
OTHER = replace(FIRST, serial="b1", holder="mac-01")


def _put_all(connection: Connection) -> None:
    for row in (FIRST, SECOND, OTHER):
        certificates.put(connection, row)


def test_a_holders_certificates_are_listed_the_newest_first(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(_put_all)
        assert ledger.read_now(lambda c: certificates.of(c, DEVICE, "jetson-01")) == [SECOND, FIRST]
        assert ledger.read_now(lambda c: certificates.get(c, "b1")) == OTHER
        assert ledger.read_now(lambda c: certificates.get(c, "c1")) is None


def test_a_revocation_is_for_ever_and_forgotten_only_with_the_certificates_own_end(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(_put_all)
        assert ledger.read_now(lambda c: certificates.revoked(c, now_ms=30)) == {}
        done = ledger.write_now(lambda c: certificates.revoke(c, ["a1", "b1"], by="admin", why="stolen", now_ms=30))
        assert done == ["a1", "b1"]
        again = ledger.write_now(lambda c: certificates.revoke(c, ["a1", "a2"], by="eve", why="other", now_ms=40))
        assert again == ["a2"]
        held = ledger.read_now(lambda c: certificates.revoked(c, now_ms=999))
        assert held["a1"] == replace(FIRST, revoked_ms=30, revoked_by="admin", revoked_why="stolen")
        assert set(ledger.read_now(lambda c: certificates.revoked(c, now_ms=1_000))) == {"a2"}


def test_the_certificates_of_an_older_ledger_can_be_revoked(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with engine.connect() as connection, connection.begin():
        older = Config()
        older.set_main_option("script_location", str(migrate.FOLDER))
        older.attributes["connection"] = connection
        command.upgrade(older, "0002")
        columns = "(id, enrolled_ms, certificate_serial, inventory_digest, status_sequence)"
        connection.execute(text(f"INSERT INTO devices {columns} VALUES ('jetson-01', 5, 'abc', '', 0)"))
    engine.dispose()
    with opened(tmp_path) as ledger:
        (row,) = ledger.read_now(lambda c: certificates.of(c, DEVICE, "jetson-01"))
        assert (row.serial, row.issued_ms, row.not_after_ms) == ("abc", 5, 5 + 365 * 86_400_000)


def test_each_entry_is_bound_to_the_one_before(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        first = ledger.write_now(
            lambda c: audit.append(c, actor="operator admin", action="apply", detail="fleet.toml", now_ms=1)
        )
        second = ledger.write_now(
            lambda c: audit.append(c, actor="device mac-01", action="enrol", subject="mac-01", now_ms=2)
        )
        rows = ledger.read_now(lambda c: list(audit.entries(c)))
    assert rows == [first, second]
    assert [row.number for row in rows] == [1, 2]
    assert (first.previous, second.previous) == (audit.FIRST, first.hash)
    assert all(row.hash == row.expected_hash for row in rows)


def test_a_changed_entry_tells_by_its_hash(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: audit.append(c, actor="operator eve", action="apply", now_ms=1))
        ledger.write_now(lambda c: c.execute(update(tables.audit).values(actor="operator admin")))
        (row,) = ledger.read_now(lambda c: list(audit.entries(c)))
    assert row.hash != row.expected_hash
