"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("bundle_length", sa.Integer(), nullable=False),
        sa.Column("block_index", sa.String(length=64), nullable=False),
        sa.Column("block_index_length", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "devices",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("enrolled_ms", sa.BigInteger(), nullable=False),
        sa.Column("certificate_serial", sa.String(length=64), nullable=False),
        sa.Column("inventory", sa.LargeBinary(), nullable=True),
        sa.Column("inventory_digest", sa.String(length=64), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.LargeBinary(), nullable=True),
        sa.Column("status_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
    )
    op.create_table(
        "enrolments",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=True),
        sa.Column("key_sha256", sa.String(length=64), nullable=True),
        sa.Column("chain_pem", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_enrolments")),
    )
    op.create_table(
        "fleet",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("bound_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_fleet")),
    )
    op.create_table(
        "latest_telemetry",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("spool_epoch", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("recv_ms", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_latest_telemetry")),
    )
    op.create_table(
        "rolled_back",
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("release", name=op.f("pk_rolled_back")),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("ending", sa.String(length=16), nullable=True),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("waves", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("watched", sa.Float(), nullable=False),
        sa.Column("wall", sa.Float(), nullable=False),
        sa.Column("state_watched", sa.Float(), nullable=False),
        sa.Column("concluded_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
        sa.UniqueConstraint("number", name=op.f("uq_rollouts_number")),
    )
    op.create_index(op.f("ix_rollouts_ended_at"), "rollouts", ["ended_at"], unique=False)
    op.create_table(
        "telemetry",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("spool_epoch", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("recv_ms", sa.BigInteger(), nullable=False),
        sa.Column("dropped_before", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device", "spool_epoch", "seq", name=op.f("pk_telemetry")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_telemetry_recv_ms"), "telemetry", ["recv_ms"], unique=False)
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "watermarks",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("spool_epoch", sa.LargeBinary(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "spool_epoch", name=op.f("pk_watermarks")),
    )
    op.create_table(
        "builds",
        sa.Column("build_key", sa.String(length=64), nullable=False),
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("runtime", sa.String(length=16), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["bundle"], ["artifacts.bundle"], name=op.f("fk_builds_bundle")),
        sa.PrimaryKeyConstraint("build_key", name=op.f("pk_builds")),
    )
    op.create_table(
        "director_metadata",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.LargeBinary(), nullable=False),
        sa.Column("snapshot", sa.LargeBinary(), nullable=False),
        sa.Column("targets", sa.LargeBinary(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("inputs", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_director_metadata_device")),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_director_metadata")),
    )
    op.create_table(
        "releases",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("profile", sa.String(length=63), nullable=False),
        sa.Column("artifact", sa.String(length=64), nullable=False),
        sa.Column("release_epoch", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["artifact"], ["artifacts.bundle"], name=op.f("fk_releases_artifact")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_releases")),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("argument", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_requests_device")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_device_state"), "requests", ["device", "state"], unique=False)
    op.create_table(
        "rollout_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rollout", sa.String(length=63), nullable=False),
        sa.Column("device", sa.String(length=63), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_rollout_changes_rollout")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_changes")),
    )
    op.create_index(op.f("ix_rollout_changes_rollout"), "rollout_changes", ["rollout"], unique=False)
    op.create_table(
        "rollout_devices",
        sa.Column("rollout", sa.String(length=63), nullable=False),
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=True),
        sa.Column("previous", sa.String(length=64), nullable=True),
        sa.Column("first_generation", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=True),
        sa.Column("detached", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_rollout_devices_rollout")),
        sa.PrimaryKeyConstraint("rollout", "device", name=op.f("pk_rollout_devices")),
    )
    op.create_index(op.f("ix_rollout_devices_device"), "rollout_devices", ["device"], unique=False)
    op.create_table(
        "desired",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=True),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("settled_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_desired_device")),
        sa.ForeignKeyConstraint(["release"], ["releases.digest"], name=op.f("fk_desired_release")),
        sa.PrimaryKeyConstraint("device", "generation", name=op.f("pk_desired")),
    )
