"""A build says nothing of memory: how much a device needs depends on a release's options, and stands there."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("builds") as builds:
        builds.drop_column("memory_bytes")
