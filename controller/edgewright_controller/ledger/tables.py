"""The ledger's tables, as the newest migration leaves them.

Times that end in `_ms` are Unix milliseconds by the controller's clock; those of a rollout are seconds (float), as
its engine counts them. Digests are lower-case hex. `rollout_devices` holds where each device of a rollout stands now,
`rollout_changes` how it got there; only what changes is written to either.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

fleet = Table(
    "fleet", metadata, Column("name", String(63), primary_key=True), Column("bound_ms", BigInteger, nullable=False)
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("bundle", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("bundle_length", Integer, nullable=False),
    Column("block_index", String(64), nullable=False),
    Column("block_index_length", Integer, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    Column("build_key", String(64), primary_key=True),
    Column("bundle", String(64), ForeignKey("artifacts.bundle"), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("runtime", String(16), nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("recipe", Text),
)

# What was measured on a build; one that was refused is here, and its artifact is not in the store.
build_cards = Table(
    "build_cards",
    metadata,
    Column("build_key", String(64), primary_key=True),
    Column("artifact", String(64), nullable=False),
    Column("measures", Text, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("card", Text),
    Column("provenance", String(64)),
    Index(None, "artifact"),
)

# Which builds a model has; one that was refused says why.
model_builds = Table(
    "model_builds",
    metadata,
    Column("model", String(63), nullable=False),
    Column("build_key", String(64), nullable=False),
    Column("runtime", String(16), nullable=False),
    Column("quantization", String(32), nullable=False),
    Column("recipe", Text, nullable=False),
    Column("refused", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("model", "build_key"),
)

releases = Table(
    "releases",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("document", Text, nullable=False),
    Column("model", String(63), nullable=False),
    Column("profile", String(63), nullable=False),
    Column("artifact", String(64), ForeignKey("artifacts.bundle"), nullable=False),
    Column("release_epoch", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

rolled_back = Table(
    "rolled_back",
    metadata,
    Column("release", String(64), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
)

# Releases that a rollback of these devices took from them: others may have or get them.
rolled_back_on = Table(
    "rolled_back_on",
    metadata,
    Column("device", String(63), ForeignKey("devices.id"), nullable=False),
    Column("release", String(64), ForeignKey("releases.digest"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("device", "release"),
)

# The manifests that were applied last.
applied = Table(
    "applied",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Column("file", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("certificate_serial", String(64), nullable=False),
    Column("inventory", LargeBinary),
    Column("inventory_digest", String(64), nullable=False),
    Column("seen_ms", BigInteger),
    Column("status", LargeBinary),
    Column("status_sequence", BigInteger, nullable=False),
    Column("decommissioned_ms", BigInteger),
)

cordons = Table(
    "cordons",
    metadata,
    Column("device", String(63), ForeignKey("devices.id"), primary_key=True),
    Column("by", String(128), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("device", String(63), ForeignKey("devices.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("value", String(128), nullable=False),
    Column("by", String(128), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("device", "name"),
)

# What the manifest that was applied last has for each of its devices, also those that have not enrolled.
assignments = Table(
    "assignments",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("release", String(64), ForeignKey("releases.digest"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

desired = Table(
    "desired",
    metadata,
    Column("device", String(63), ForeignKey("devices.id"), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("release", String(64), ForeignKey("releases.digest")),
    Column("since_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("settled_ms", BigInteger),
    PrimaryKeyConstraint("device", "generation"),
)

director_metadata = Table(
    "director_metadata",
    metadata,
    Column("device", String(63), ForeignKey("devices.id"), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("timestamp", LargeBinary, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
    Column("targets", LargeBinary, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("inputs", String(64), nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("document", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("ending", String(16)),
    Column("wave", Integer, nullable=False),
    Column("waves", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("watched", Float, nullable=False),
    Column("wall", Float, nullable=False),
    Column("state_watched", Float, nullable=False),
    Column("concluded_at", Float, nullable=False),
    Column("offered_at", Float, nullable=False, server_default="0"),
    Column("next_offer_at", Float, nullable=False, server_default="0"),
    Column("halted", Integer, nullable=False, server_default="0"),
    Index(None, "ended_at"),
)

rollout_devices = Table(
    "rollout_devices",
    metadata,
    Column("rollout", String(63), ForeignKey("rollouts.id"), nullable=False),
    Column("device", String(63), nullable=False),
    Column("place", Integer, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("release", String(64)),
    Column("previous", String(64)),
    Column("first_generation", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("deadline", Float),
    Column("detached", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("windows", Text, nullable=False, server_default="[]"),
    Column("zone", String(63), nullable=False, server_default="UTC"),
    Column("step", String(16), nullable=False, server_default=""),
    Column("until", Float),
    Column("offer_stands", Boolean, nullable=False, server_default=false()),
    Column("tries_again", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("rollout", "device"),
    Index(None, "device"),
)

rollout_changes = Table(
    "rollout_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rollout", String(63), ForeignKey("rollouts.id"), nullable=False),
    Column("device", String(63)),
    Column("state", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "rollout"),
)

telemetry = Table(
    "telemetry",
    metadata,
    Column("device", String(63), nullable=False),
    Column("spool_epoch", LargeBinary(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("recv_ms", BigInteger, nullable=False),
    Column("dropped_before", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("device", "spool_epoch", "seq"),
    Index(None, "recv_ms"),
    sqlite_with_rowid=False,
)

latest_telemetry = Table(
    "latest_telemetry",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("spool_epoch", LargeBinary(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("recv_ms", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# Telemetry added up. `slice`: ten minutes, numbered from 1970. `restarts`: the highest count that the agent told;
# `windows` in which the device decoded, with the sums of the logarithm of tokens per second and of its square.
device_health = Table(
    "device_health",
    metadata,
    Column("device", String(63), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("artifact", LargeBinary(32), nullable=False),
    Column("slice", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("restarts", BigInteger, nullable=False),
    Column("windows", BigInteger, nullable=False),
    Column("log_speed", Float, nullable=False),
    Column("log_speed_2", Float, nullable=False),
    PrimaryKeyConstraint("device", "generation", "artifact", "slice"),
    Index(None, "slice"),
    sqlite_with_rowid=False,
)

watermarks = Table(
    "watermarks",
    metadata,
    Column("device", String(63), nullable=False),
    Column("spool_epoch", LargeBinary(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("device", "spool_epoch"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("device", String(63), ForeignKey("devices.id"), nullable=False),
    Column("kind", Integer, nullable=False),
    Column("argument", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index(None, "device", "state"),
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("device", String(63), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("key_sha256", String(64)),
    Column("chain_pem", LargeBinary),
    Column("by", String(128), nullable=False, server_default=""),
)

# Every client certificate that was issued and may still be shown, with what became of it.
certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("holder", String(63), nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("revoked_by", String(128), nullable=False),
    Column("revoked_why", Text, nullable=False),
    Index(None, "kind", "holder"),
    Index(None, "key_sha256"),
    Index(None, "revoked_ms"),
)

# The newest certificate of each device once more, with its chain: for who lost the answer that brought it.
newest_chains = Table(
    "newest_chains",
    metadata,
    Column("device", String(63), primary_key=True),
    Column("serial", String(64), nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("chain_pem", LargeBinary, nullable=False),
)

authorised_keys = Table(
    "authorised_keys",
    metadata,
    Column("key_sha256", String(64), primary_key=True),
    Column("device", String(63), nullable=False),
    Column("by", String(128), nullable=False),
    Column("authorised_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
)

operators = Table(
    "operators",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("by", String(128), nullable=False),
    Column("added_ms", BigInteger, nullable=False),
    Column("removed_ms", BigInteger),
)

operator_tokens = Table(
    "operator_tokens",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("operator", String(63), ForeignKey("operators.name"), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
    Column("key_sha256", String(64)),
    Column("chain_pem", LargeBinary),
)

# Offline mandates that were drawn up; exactly one of `device` and `profile` is set. Devices that take one say its
# generation when they are back, so no other change may ever use that.
mandates = Table(
    "mandates",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("device", String(63), ForeignKey("devices.id")),
    Column("profile", String(63)),
    Column("generation", BigInteger, nullable=False),
    Column("release", String(64), ForeignKey("releases.digest"), nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Index(None, "device"),
    Index(None, "profile"),
)

# Each time that this ledger came from a backup: what happened between the backup and the restore is not in it.
restorations = Table(
    "restorations",
    metadata,
    Column("restored_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("backup_ms", BigInteger, nullable=False),
)

# Only ever appended to. `hash` is over all other columns and the hash of the entry before.
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("release", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "subject"),
)
