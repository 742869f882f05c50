"""Who speaks for each role, from where, and until when: for `keys status`, and for warnings in time. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import Key
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from edgewright_controller import pki_files
from edgewright_controller.publish import metadata, roots
from edgewright_controller.publish.holders import holder_of

# Days before its end at which something offline is warned of: a ceremony takes people and days.
WARN_DAYS: Final = 30
# No leaf outlives the intermediate, so this is longer than any leaf lives.
AUTHORITY_WARN_DAYS: Final = 365


@dataclass(frozen=True)
class KeyRow:
    """A role. `keys`: short ids, or the names of holders. `where`: "online", "holders", "builder" or "offline".
    `expires` None: what it signs is made on demand."""

    role: str
    keys: tuple[str, ...]
    threshold: int
    where: str
    expires: datetime | None
    days_left: int | None
    warning: str

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        return {**asdict(self), "keys": list(self.keys), "expires": self.expires.isoformat() if self.expires else None}


@dataclass(frozen=True)
class Look:
    """What stands on the disk."""

    image: Root
    director: Root
    targets: Targets
    expiries: Mapping[str, datetime]
    ca_ends: datetime
    intermediate_ends: datetime
    ca_key_here: bool

    @classmethod
    def read(cls, state: Path) -> Look:
        """As it stands in a state folder. Raises PublishError, AuthorityError, OSError."""
        folder = state / "image"
        timestamp = metadata.read(folder / "timestamp.json", Timestamp).signed
        snapshot = metadata.read(folder / f"{timestamp.snapshot_meta.version}.snapshot.json", Snapshot).signed
        versions = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        targets = metadata.read(folder / f"{versions['targets']}.targets.json", Targets).signed
        builder = metadata.read(folder / f"{versions['builder']}.builder.json", Targets).signed
        image, director = roots.newest(folder), roots.newest(state / "director")
        expiries = {
            "image root": image.expires,
            "image targets": targets.expires,
            "image snapshot": snapshot.expires,
            "image timestamp": timestamp.expires,
            "image builder": builder.expires,
            "director root": director.expires,
        }
        pki = state / "pki"
        return cls(
            image,
            director,
            targets,
            expiries,
            pki_files.load_certificate(pki / "root.crt").not_valid_after_utc,
            pki_files.load_certificate(pki / "intermediate.crt").not_valid_after_utc,
            (pki / "root.key").exists(),
        )


def rows(look: Look, now: datetime) -> list[KeyRow]:
    """One row a role, the offline ones first."""
    image, director = look.image, look.director
    delegations = look.targets.delegations
    roles = (delegations.roles if delegations else None) or {}
    known = delegations.keys if delegations else {}
    made = [
        _row("image root", image.roles["root"], image.keys, look, now),
        _row("image targets", image.roles["targets"], image.keys, look, now),
        _row("director root", director.roles["root"], director.keys, look, now),
    ]
    if "mandate" in roles:
        made.append(_row("image mandate", roles["mandate"], known, look, now))
    made += [
        _row("image snapshot", image.roles["snapshot"], image.keys, look, now),
        _row("image timestamp", image.roles["timestamp"], image.keys, look, now),
        _row("image builder", roles["builder"], known, look, now),
        _row("director", director.roles["targets"], director.keys, look, now),
    ]
    where = "online" if look.ca_key_here else "offline"
    made.append(_authority("root CA", where, look.ca_ends, now))
    made.append(_authority("intermediate CA", "online", look.intermediate_ends, now))
    return made


def lines(rows: Sequence[KeyRow]) -> list[str]:
    """The rows for a person, and what to do about them."""
    heads = ("role", "keys", "where", "good until")
    cells = [heads, *((one.role, _keys(one), one.where, _until(one)) for one in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    warnings = [f"{one.role}: {one.warning}" for one in rows if one.warning]
    if any(one.where == "online" for one in rows if one.role in ("image root", "image targets", "director root")):
        warnings.append(
            "whoever breaks into this host can sign for the whole fleet; give these keys to people:"
            " edgewright keys init --state STATE --out FOLDER --holder A --holder B --holder C"
        )
    return shown + warnings


def _row(name: str, role: Any, keys: Mapping[str, Key], look: Look, now: datetime) -> KeyRow:
    speakers = [keys[keyid] for keyid in role.keyids]
    held = [holder_of(key) for key in speakers]
    where = "holders" if any(held) else "builder" if name == "image builder" else "online"
    expires = look.expiries.get(name)
    days = (expires - now).days if expires else None
    shown = tuple(sorted(holder or key.keyid[:8] for holder, key in zip(held, speakers, strict=True)))
    return KeyRow(name, shown, role.threshold, where, expires, days, _warning(where, expires, now))


def _authority(name: str, where: str, ends: datetime, now: datetime) -> KeyRow:
    left = (ends - now).days
    warning = "" if left >= AUTHORITY_WARN_DAYS else f"ends in {left} days: edgewright keys intermediate"
    return KeyRow(name, (), 1, where, ends, left, warning if name == "intermediate CA" else "")


def _warning(where: str, expires: datetime | None, now: datetime) -> str:
    if expires is None:
        return ""
    if expires <= now:
        cure = "`edgewright keys renew`" if where == "holders" else "is the controller running? see its log"
        return f"ended on {expires:%Y-%m-%d}: devices serve on, but take no change until it is renewed: {cure}"
    if where == "holders" and (expires - now).days < WARN_DAYS:
        return f"ends in {(expires - now).days} days: begin the ceremony: edgewright keys renew"
    return ""


def _keys(row: KeyRow) -> str:
    if not row.keys:
        return "–"
    many = len(row.keys) > 1 or row.threshold > 1
    return f"{row.threshold} of {', '.join(row.keys)}" if many else row.keys[0]


def _until(row: KeyRow) -> str:
    return f"{row.expires:%Y-%m-%d}, {row.days_left} days" if row.expires else "on demand"
