"""Who may speak and until when: certificates, authorised keys, operators. And who did what: the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("holder", sa.String(length=63), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.Column("not_after_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_by", sa.String(length=128), nullable=False),
        sa.Column("revoked_why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificates")),
    )
    op.create_index(op.f("ix_certificates_kind_holder"), "certificates", ["kind", "holder"])
    op.create_index(op.f("ix_certificates_revoked_ms"), "certificates", ["revoked_ms"])
    op.create_index(op.f("ix_certificates_key_sha256"), "certificates", ["key_sha256"])
    op.create_table(
        "newest_chains",
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("chain_pem", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_newest_chains")),
    )
    op.create_table(
        "authorised_keys",
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=63), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("authorised_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_sha256", name=op.f("pk_authorised_keys")),
    )
    op.add_column("enrolments", sa.Column("by", sa.String(length=128), server_default="", nullable=False))
    op.create_table(
        "operators",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("added_ms", sa.BigInteger(), nullable=False),
        sa.Column("removed_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_operators")),
    )
    op.create_table(
        "operator_tokens",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("operator", sa.String(length=63), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=True),
        sa.Column("key_sha256", sa.String(length=64), nullable=True),
        sa.Column("chain_pem", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["operator"], ["operators.name"], name=op.f("fk_operator_tokens_operator")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_operator_tokens")),
    )
    op.create_table(
        "mandates",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("device", sa.String(length=63), nullable=True),
        sa.Column("profile", sa.String(length=63), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_mandates_device")),
        sa.ForeignKeyConstraint(["release"], ["releases.digest"], name=op.f("fk_mandates_release")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_mandates")),
    )
    op.create_index(op.f("ix_mandates_device"), "mandates", ["device"])
    op.create_index(op.f("ix_mandates_profile"), "mandates", ["profile"])
    op.create_table(
        "restorations",
        sa.Column("restored_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("backup_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("restored_ms", name=op.f("pk_restorations")),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("release", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"])
    # Device certificates lived 365 days before this revision; the exact end stands in the certificate only.
    op.execute(
        "INSERT INTO certificates (serial, kind, holder, key_sha256, issued_ms, not_after_ms, revoked_by, revoked_why)"
        " SELECT certificate_serial, 'device', id, '', enrolled_ms, enrolled_ms + 31536000000, '', ''"
        " FROM devices WHERE certificate_serial != ''"
    )
