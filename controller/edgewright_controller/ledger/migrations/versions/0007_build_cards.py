"""What was measured on each build, by its key; one that was refused has no artifact in the store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "build_cards",
        sa.Column("build_key", sa.String(length=64), nullable=False),
        sa.Column("artifact", sa.String(length=64), nullable=False),
        sa.Column("measures", sa.Text(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("card", sa.Text()),
        sa.Column("provenance", sa.String(length=64)),
        sa.PrimaryKeyConstraint("build_key", name=op.f("pk_build_cards")),
    )
    op.create_index(op.f("ix_build_cards_artifact"), "build_cards", ["artifact"])
