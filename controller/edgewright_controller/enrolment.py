"""Enrolment: a token, made for one device, is redeemed once for that device's certificate.

The secret is stored as its sha256 only. For ten minutes after it was used, the same secret with the same public key
gets the same certificate again, so that a power cut between issuing and writing costs nothing.

`create` and `redeem` read and then write the store: run each inside one transaction of it, so that a secret cannot
be redeemed twice at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import names
from edgewright_controller import single_use
from edgewright_controller.peers import key_digest
from edgewright_controller.pki import Authority, CsrRefused
from edgewright_controller.pki import requested_key as key_of
from edgewright_controller.single_use import MAX_VALID_S
from edgewright_controller.unix_time import unix_ms


class EnrolmentRefused(Exception):
    """The token or the request is not accepted; the text tells its sender why."""


class KeyRevoked(EnrolmentRefused):
    """A certificate of this key was revoked, so somebody else may have the key. With another one, the same token is
    good."""


@dataclass(frozen=True)
class EnrolmentRow:
    """One token. Times are Unix milliseconds; `used_ms` and what follows are None until it is used. `by`: the operator
    who gave it out, empty when that was not kept."""

    secret_sha256: str
    device: str
    expires_ms: int
    used_ms: int | None = None
    key_sha256: str | None = None
    chain_pem: bytes | None = None
    by: str = ""


class EnrolmentStore(Protocol):
    """Where tokens are kept."""

    def get(self, secret_sha256: str) -> EnrolmentRow | None:
        """The token of this secret, None when there is none."""

    def put(self, row: EnrolmentRow) -> None:
        """Keep `row` in place of the one with the same secret_sha256, if any."""


@dataclass(frozen=True)
class Enrolments:
    """Makes and redeems tokens. `address`: host:port of the enrolment service, as devices reach it."""

    authority: Authority
    store: EnrolmentStore
    address: str

    def create(self, device: str, valid_s: int, now: datetime, by: str = "") -> str:
        """The text of a new token for `device` from operator `by`, good for `valid_s` seconds (0: 24 hours).

        Raises EnrolmentRefused for a bad device id or a longer time.
        """
        if not names.is_id(device):
            raise EnrolmentRefused(f"{device!r} is not a device id; one looks like jetson-01")
        if not 0 <= valid_s <= MAX_VALID_S:
            raise EnrolmentRefused(f"a token is good for at most {MAX_VALID_S} seconds, not {valid_s}")
        secret = single_use.new_secret()
        expires = now + timedelta(seconds=valid_s or MAX_VALID_S)
        self.store.put(EnrolmentRow(single_use.named(secret), device, unix_ms(expires), by=by))
        return single_use.text(self.address, device, self.authority.ca_pem, secret)

    def without_secret(self, device: str) -> str:
        """The text with which `device` enrols by an authorised key: where, as whom, whom to trust."""
        return single_use.text(self.address, device, self.authority.ca_pem, "")

    def redeem(self, secret: str, csr_der: bytes, now: datetime) -> tuple[str, bytes]:
        """(device, chain in PEM) for the holder of `secret` and of the request's key. Raises EnrolmentRefused."""
        row = self.store.get(single_use.named(secret))
        if row is None:
            raise EnrolmentRefused("this enrolment token is not known here; ask the operator for a new one")
        try:
            key_sha256 = key_digest(key_of(csr_der))
            if row.used_ms is not None:
                return row.device, _again(row, key_sha256, now)
            if unix_ms(now) >= row.expires_ms:
                ended = datetime.fromtimestamp(row.expires_ms / 1000, timezone.utc)
                raise EnrolmentRefused(f"this enrolment token ended at {ended:%Y-%m-%d %H:%M} UTC; ask for a new one")
            chain = self.authority.issue_device(row.device, csr_der, now)
        except CsrRefused as error:
            raise EnrolmentRefused(f"{row.device}: {error}") from error
        self.store.put(replace(row, used_ms=unix_ms(now), key_sha256=key_sha256, chain_pem=chain))
        return row.device, chain


def key_in(public_key_pem: str) -> str:
    """The sha256 that names the P-256 key in `public_key_pem`. Raises EnrolmentRefused, with what to do."""
    how = "give the file that `edgewright-agent key` printed on the device"
    if "PRIVATE KEY" in public_key_pem:
        raise EnrolmentRefused(f"this is a private key, which should never leave its device; {how}")
    try:
        public = serialization.load_pem_public_key(public_key_pem.encode("utf-8", "surrogatepass"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise EnrolmentRefused(f"this is not a public key in PEM; {how}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise EnrolmentRefused(f"this key is of another kind, and a device's is of type P-256; {how}")
    return key_digest(public)


def _again(row: EnrolmentRow, key_sha256: str, now: datetime) -> bytes:
    repeated = row.used_ms is not None and single_use.is_repeated(row.used_ms, row.key_sha256, key_sha256, now)
    if row.chain_pem is None or not repeated:
        raise EnrolmentRefused(f"this enrolment token of {row.device} was used already; ask the operator for a new one")
    return row.chain_pem
