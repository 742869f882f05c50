"""The manifests that were applied last, what single devices were rolled back from, and which recipe made a build."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "applied",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_applied")),
    )
    op.create_table(
        "rolled_back_on",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_rolled_back_on_device")),
        sa.ForeignKeyConstraint(["release"], ["releases.digest"], name=op.f("fk_rolled_back_on_release")),
        sa.PrimaryKeyConstraint("device", "release", name=op.f("pk_rolled_back_on")),
    )
    op.add_column("rolled_back", sa.Column("reason", sa.Text(), server_default="", nullable=False))
    # What made the builds before this revision is not known any more.
    op.add_column("builds", sa.Column("recipe", sa.Text(), nullable=True))
