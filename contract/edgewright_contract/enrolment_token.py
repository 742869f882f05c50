"""The text that an operator carries to a new device: where to enrol, as whom, whom to trust, and maybe a secret.

    ewt1.<base64url of canonical JSON {"a": "host:port", "c": root CA (DER, base64), "d": device, "s": secret}>

The CA travels with the secret, so the first connection of a device is already to the right controller. Without "s" the
device proves that it holds a key that was authorised; such a text is no secret, and an older agent calls it damaged.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Final

from edgewright_contract import canonical, names

PREFIX: Final = "ewt1."
MAX_TOKEN_CHARACTERS: Final = 8192
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class TokenError(ValueError):
    """The text is not an enrolment token."""


@dataclass(frozen=True)
class EnrolmentToken:
    """`address`: host:port of the enrolment service. `secret`: 32 random bytes, base64url without padding; empty: the
    device enrols by its key."""

    address: str
    device: str
    ca_der: bytes
    secret: str

    def encode(self) -> str:
        """The text of the token."""
        document = {"a": self.address, "c": base64.b64encode(self.ca_der).decode(), "d": self.device}
        if self.secret:
            document["s"] = self.secret
        return PREFIX + base64.urlsafe_b64encode(canonical.encode(document)).decode().rstrip("=")


def parse(text: str) -> EnrolmentToken:
    """The token in `text`; blanks around it are left out. Raises TokenError, whose text never holds the secret."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise TokenError(f"this is no enrolment token: one starts with {PREFIX!r}; copy it again, whole")
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise TokenError(f"an enrolment token has at most {MAX_TOKEN_CHARACTERS} characters")
    body = text[len(PREFIX) :]
    try:
        document = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        token = EnrolmentToken(
            address=document["a"],
            device=document["d"],
            ca_der=base64.b64decode(document["c"], validate=True),
            secret=document.get("s", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise TokenError("the enrolment token is damaged; copy it again, whole") from None
    _check(token)
    return token


def is_address(text: str) -> bool:
    """Whether `text` is host:port, with an IPv6 host in brackets."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and 0 < int(match.group(2)) <= 65535


def _check(token: EnrolmentToken) -> None:
    texts = (token.address, token.device, token.secret)
    if not all(isinstance(text, str) for text in texts) or (token.secret and not _SECRET.fullmatch(token.secret)):
        raise TokenError("the enrolment token is damaged; copy it again, whole")
    if not is_address(token.address):
        raise TokenError(f"the enrolment token names no host:port: {token.address!r}")
    if not names.is_id(token.device):
        raise TokenError(f"the enrolment token names no device: {token.device!r}")
