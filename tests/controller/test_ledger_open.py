"""Opening a ledger: made when absent, migrated when old, refused when it is something else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from edgewright_controller.gates import GatePolicy
from edgewright_controller.ledger import (
    FleetMismatch,
    Ledger,
    LedgerDamaged,
    LedgerError,
    artifacts,
    fleet,
    migrate,
    rollouts,
    tables,
)
from edgewright_controller.rollout import DeviceChange, DevicePhase, OnFailure, RolloutPolicy, RolloutTarget
from tests.controller.ledger_rows import opened


def test_a_new_ledger_has_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        differences = ledger.read_now(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))
    assert differences == []


def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: fleet.bind(c, "demo", 1))
    with opened(tmp_path) as ledger:
        assert ledger.read_now(fleet.name) == "demo"
        ledger.write_now(lambda c: fleet.bind(c, "demo", 2))
        with pytest.raises(FleetMismatch, match="belongs to fleet 'demo', not 'other'"):
            ledger.write_now(lambda c: fleet.bind(c, "other", 3))


def _at_revision(path: Path, revision: str, *statements: str) -> None:
    """Make a ledger as an older version left it, with these rows."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection, connection.begin():
        older = Config()
        older.set_main_option("script_location", str(migrate.FOLDER))
        older.attributes["connection"] = connection
        command.upgrade(older, revision)
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_ledger_of_the_first_version_keeps_its_builds(tmp_path: Path) -> None:
    _at_revision(
        tmp_path / "ledger.sqlite",
        "0001",
        "INSERT INTO artifacts VALUES ('a', 7, 1, 'i', 1)",
        "INSERT INTO builds (build_key, bundle, size, memory_bytes, runtime, made_ms)"
        " VALUES ('k', 'a', 7, 7, 'gguf', 5)",
    )
    with opened(tmp_path) as ledger:
        assert ledger.read_now(artifacts.builds) == {"k": artifacts.BuildRow("k", "a", 7, "gguf", 5)}
        assert ledger.read_now(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata)) == []


def test_a_rollout_that_ran_under_an_older_version_goes_on_under_its_policy(tmp_path: Path) -> None:
    document = (
        '{"about":{"undoes":false,"what":"apply of fleet.toml"},"device_deadline_s":30.0,"max_failures":2,'
        '"on_failure":"revert","patience_s":60.0,"soak_s":5.0}'
    )
    _at_revision(
        tmp_path / "ledger.sqlite",
        "0003",
        "INSERT INTO rollouts (id, number, document, state, wave, waves, reason, created_at, created_by, changed_at,"
        f" watched, wall, state_watched, concluded_at) VALUES ('rollout-1', 1, '{document}', 'running', 1, 1, 'wave 1',"
        " 1.0, 'admin', 2.0, 1.0, 2.0, 0.0, 0.0)",
        'INSERT INTO rollout_devices (rollout, device, place, wave, "release", first_generation, state, generation,'
        " changed_at, deadline, detached, reason)"
        " VALUES ('rollout-1', 'mac-01', 0, 1, 'r', 0, 'offered', 1, 2.0, 30.0, 0, '')",
    )
    with opened(tmp_path) as ledger:
        state = ledger.read_now(lambda c: rollouts.load(c, "rollout-1"))
        about = ledger.read_now(lambda c: rollouts.get(c, "rollout-1")).about
    assert state.spec.policy == RolloutPolicy(
        device_deadline_s=30.0, gate=GatePolicy(2, 5.0), on_failure=OnFailure.REVERT, patience_s=60.0
    )
    assert about == {"what": "apply of fleet.toml", "undoes": False}
    offered = DeviceChange("mac-01", DevicePhase.OFFERED, 1, deadline=30.0, until=30.0, offer_stands=True)
    assert state.devices == {"mac-01": offered}
    assert state.spec.waves == ((RolloutTarget("mac-01", "r", None, 0),),)


def test_it_is_durable_and_checks_references(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        pragmas = ledger.write_now(
            lambda c: [
                c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )
    assert pragmas == ["wal", 2, 1]


def test_reading_cannot_write(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert ledger.read_now(fleet.name) is None
        with pytest.raises(LedgerError, match="readonly"):
            ledger.read_now(lambda c: fleet.bind(c, "demo", 1))


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"these are my holiday pictures" * 1000)
    with pytest.raises(LedgerDamaged, match=r"ledger\.sqlite: this is not a ledger .* restore the state folder"):
        Ledger.open(path)
    assert path.read_bytes().startswith(b"these are my holiday")


def test_a_ledger_that_cannot_be_had_now_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright_controller.ledger.ledger.BUSY_S", 0.2)
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match=r"cannot be opened now .*end what else uses it") as caught:
            Ledger.open(path)
        assert not isinstance(caught.value, LedgerDamaged)
        other.execute("ROLLBACK")
    other.close()
    Ledger.open(path).close()


def test_the_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(LedgerDamaged, match="a newer Edgewright has changed this ledger"):
        Ledger.open(tmp_path / "ledger.sqlite")


def test_a_migration_that_was_cut_off_leaves_nothing_half_done(tmp_path: Path) -> None:
    """All of a migration is one transaction: this shows that tables are part of it."""
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE watermarks (x)")  # the migration makes this one late, and fails there
    with pytest.raises(LedgerDamaged):
        Ledger.open(path)
    with sqlite3.connect(path) as other:
        names = {row[0] for row in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"watermarks"}


def test_the_migrations_lie_inside_the_package() -> None:
    assert (migrate.FOLDER / "env.py").is_file()
    assert migrate.FOLDER.parent == Path(migrate.__file__).parent
