"""Devices that are labelled, cordoned or decommissioned, and what a rollout's waves, windows and policy need."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "cordons",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_cordons_device")),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_cordons")),
    )
    op.create_table(
        "labels",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=128), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_labels_device")),
        sa.PrimaryKeyConstraint("device", "name", name=op.f("pk_labels")),
    )
    op.create_table(
        "assignments",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["release"], ["releases.digest"], name=op.f("fk_assignments_release")),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_assignments")),
    )
    op.add_column("devices", sa.Column("decommissioned_ms", sa.BigInteger(), nullable=True))
    op.add_column("rollout_devices", sa.Column("windows", sa.Text(), server_default="[]", nullable=False))
    op.add_column("rollout_devices", sa.Column("zone", sa.String(length=63), server_default="UTC", nullable=False))
    for name in ("offered_at", "next_offer_at"):
        op.add_column("rollouts", sa.Column(name, sa.Float(), server_default="0", nullable=False))
    op.add_column("rollouts", sa.Column("halted", sa.Integer(), server_default="0", nullable=False))
    op.add_column("rollout_devices", sa.Column("step", sa.String(length=16), server_default="", nullable=False))
    op.add_column("rollout_devices", sa.Column("until", sa.Float(), nullable=True))
    for name in ("offer_stands", "tries_again"):
        op.add_column("rollout_devices", sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False))
    # Until this revision a rollout gave a device the release first, once, and then nothing but the way back.
    op.execute("UPDATE rollout_devices SET until = deadline, offer_stands = (generation = first_generation + 1)")
    _policies_apart()


def _policies_apart() -> None:
    """A rollout's document had its policy among the rest; now it stands by itself, as its values are called."""
    table = sa.table("rollouts", sa.column("id", sa.String), sa.column("document", sa.Text))
    connection = op.get_bind()
    for rollout, text in connection.execute(sa.select(table.c.id, table.c.document)).all():
        document = _rewritten(json.loads(text))
        connection.execute(sa.update(table).where(table.c.id == rollout).values(document=json.dumps(document)))


def _rewritten(old: dict[str, Any]) -> dict[str, Any]:
    return {
        "about": old["about"],
        "policy": {
            "device_deadline_s": old["device_deadline_s"],
            "gate": {"max_failures": old["max_failures"], "soak_s": old["soak_s"]},
            "on_failure": old["on_failure"],
            "patience_s": old["patience_s"],
        },
        "after": [],
    }
