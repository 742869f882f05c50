"""Brings a ledger to the newest tables, by alembic's migrations that come with the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from edgewright_controller.ledger.errors import LedgerDamaged

FOLDER = Path(__file__).with_name("migrations")


def to_head(engine: Engine, path: Path) -> None:
    """Apply what is missing, all or nothing.

    Raises LedgerDamaged for a ledger of a newer version, and sqlalchemy's DatabaseError when the file is no database.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection, connection.begin():
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise LedgerDamaged(
                f"{path}: a newer Edgewright has changed this ledger (revision {current}); install that version"
            )
        if current != scripts.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
