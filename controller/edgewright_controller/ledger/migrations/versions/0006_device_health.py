"""How devices did, added up from their telemetry: by device, generation, artifact and ten minutes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    counts = [
        sa.Column(name, sa.BigInteger(), nullable=False)
        for name in ("requests", "errors", "rejected", "restarts", "windows")
    ]
    op.create_table(
        "device_health",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("artifact", sa.LargeBinary(length=32), nullable=False),
        sa.Column("slice", sa.BigInteger(), nullable=False),
        *counts,
        sa.Column("log_speed", sa.Float(), nullable=False),
        sa.Column("log_speed_2", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "generation", "artifact", "slice", name=op.f("pk_device_health")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_device_health_slice"), "device_health", ["slice"])
