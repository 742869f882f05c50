"""The secret of a token that is good once: made, named, and when its use is the same use again. Pure but for chance.

Devices enrol and operators log in with such tokens. Only the sha256 of a secret is kept.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgewright_contract import digest
from edgewright_contract.enrolment_token import EnrolmentToken
from edgewright_controller.unix_time import unix_ms

MAX_VALID_S: Final = 24 * 3600
REPEAT: Final = timedelta(minutes=10)


def new_secret() -> str:
    """32 random bytes, base64url without padding."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def named(secret: str) -> str:
    """The sha256 under which a secret is kept.

    It has 256 random bits, so a plain hash is enough; looking it up by hash takes no secret-dependent time.
    """
    return digest.of_bytes(secret.encode("utf-8", "surrogatepass"))


def text(address: str, holder: str, ca_pem: bytes, secret: str) -> str:
    """The token's text: where it is redeemed (host:port), as whom, whom to trust; `secret` may be empty."""
    ca = x509.load_pem_x509_certificate(ca_pem)
    return EnrolmentToken(address, holder, ca.public_bytes(serialization.Encoding.DER), secret).encode()


def is_repeated(used_ms: int, used_by: str | None, key_sha256: str, now: datetime) -> bool:
    """Whether a token that was used may give the same again: by the same key, within ten minutes. A power cut between
    issuing and writing then costs nothing."""
    recent = unix_ms(now) - used_ms <= REPEAT / timedelta(milliseconds=1)
    return recent and used_by == key_sha256
