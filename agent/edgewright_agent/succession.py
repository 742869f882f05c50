"""One certificate after another: asked for, tried out over a real connection, and only then put in the old one's place.

Each function does its work from wherever the one before was cut off. The controller gives the same certificate to the
same key again, so the answer to a lost request, and the trial of a new pair, are the same call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from edgewright_agent import enrolment
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import DeviceKey, IdentityError
from edgewright_agent.identity import FOLDER, Identity, check_chain, keep_enrolment_address, life_of
from edgewright_agent.key_pairs import Pair, Pairs
from edgewright_agent.link import BadAnswer, Credentials, Refused
from edgewright_contract import durable
from edgewright_contract.v1 import agent_pb2

_SOURCE: Final = "the controller"


class Line(Protocol):
    """A connection to the controller."""

    def renew(self, csr_der: bytes) -> agent_pb2.RenewResponse:
        """Raises LinkDown, Refused."""

    def close(self) -> None:
        """End it."""


OpenLine = Callable[[Credentials], Line]


@dataclass(frozen=True)
class Means:
    """What a device renews with: its state folder, how it connects, and how its waiting is cut short."""

    state: Path
    open_line: OpenLine
    cancellation: Cancellation


def renew(means: Means, identity: Identity, line: Line, now: datetime) -> Identity:
    """The identity with a new key and certificate, in use from now on. `line` is the one that stands.

    Raises LinkDown, Refused, BadAnswer, IdentityError, OSError; the old pair is in use then.
    """
    pairs = Pairs(means.state / FOLDER, identity.keys)
    pair = pairs.next()
    if pair.certificate.exists() and not _whole(identity, pair, now):
        pairs.forget(pair)
    # The key is durable before it is asked with: a full disk costs no certificate, a lost answer no second one.
    key = identity.keys.make(pair.folder)
    if not pair.certificate.exists():
        try:
            answer = line.renew(key.csr())
        except Refused:
            pairs.forget(pair)
            raise
        _keep(identity, pair, key, answer.certificate_chain_pem)
    return _succeed(means, identity, pairs, pair)


def come_back(means: Means, identity: Identity, now: datetime) -> Identity:
    """The identity with a new certificate, by proof of the key of the one that has ended.

    Raises LinkDown, Refused, BadAnswer, IdentityError, OSError.
    """
    if not identity.enrolment_address:
        raise IdentityError(
            f"the certificate of {identity.device} ended on {identity.life.not_after:%Y-%m-%d}, and it enrolled with"
            " a version that did not keep where to come back; enrol it again, with the token that"
            " `edgewright enroll create` prints"
        )
    pairs = Pairs(means.state / FOLDER, identity.keys)
    pair = pairs.next()
    if identity.keys.has(pair.folder):
        # A renewal that was cut off. If the controller had issued it, its key is the one that may come back.
        if _whole(identity, pair, now):
            return _succeed(means, identity, pairs, pair)
        try:
            key = identity.keys.load(pair.folder)
            _keep(identity, pair, key, _asked(means, identity, key))
        except (Refused, IdentityError):
            pairs.forget(pair)
        else:
            return _succeed(means, identity, pairs, pair)
    # The same key, so replacing one file is the whole change.
    current = pairs.current()
    _keep(identity, current, identity.key, _asked(means, identity, identity.key))
    return Identity.load(means.state, identity.keys)


def _asked(means: Means, identity: Identity, key: DeviceKey) -> bytes:
    ca = identity.ca_path.read_bytes()
    answer = enrolment.ask(identity.enrolment_address, ca, "", key.csr(), means.cancellation)
    chain: bytes = answer.certificate_chain_pem
    return chain


def _keep(identity: Identity, pair: Pair, key: DeviceKey, chain: bytes) -> None:
    _checked(identity, key, chain, _SOURCE)
    durable.write(pair.certificate, chain)


def _whole(identity: Identity, pair: Pair, now: datetime) -> bool:
    """Whether the pair could be used as it stands."""
    try:
        key = identity.keys.load(pair.folder)
        leaf = _checked(identity, key, pair.certificate.read_bytes(), str(pair.certificate))
    except (IdentityError, OSError):
        return False
    return now < life_of(leaf).not_after


def _checked(identity: Identity, key: DeviceKey, chain: bytes, source: str) -> x509.Certificate:
    ca, public = x509.load_pem_x509_certificate(identity.ca_path.read_bytes()), key.public_key()
    return check_chain(chain, ca, public, device=identity.device, fleet=identity.fleet, source=source)


def _succeed(means: Means, identity: Identity, pairs: Pairs, pair: Pair) -> Identity:
    """Try the pair, and use it if the controller takes it."""
    key = identity.keys.load(pair.folder)
    line = means.open_line(Credentials(key, pair.certificate, identity.ca_path))
    try:
        with means.cancellation.calling(line.close):
            answer = line.renew(key.csr())
    except Refused:
        pairs.forget(pair)
        raise
    finally:
        line.close()
    if answer.certificate_chain_pem != pair.certificate.read_bytes():
        pairs.forget(pair)
        raise BadAnswer(f"{_SOURCE} does not know the certificate that it gave to {identity.device}")
    keep_enrolment_address(means.state / FOLDER, answer.enrolment_address)
    pairs.use(pair)
    return Identity.load(means.state, identity.keys)
