"""How a device gets a certificate without having one: by a token, or by a key that the controller knows."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.certificate_life import SKEW
from edgewright_agent.device_key import DeviceKey, FileKeys, IdentityError, KeyStore
from edgewright_agent.identity import (
    CA_FILE,
    ENROLMENT_FILE,
    FOLDER,
    Identity,
    check_chain,
    enrolment,
)
from edgewright_agent.key_pairs import Pair, Pairs
from edgewright_agent.link import LinkDown, Refused
from edgewright_contract import canonical, durable, enrolment_token, names
from edgewright_contract.enrolment_token import EnrolmentToken
from edgewright_contract.v1 import enrolment_pb2, enrolment_pb2_grpc

DEADLINE_S: Final = 30.0
_FILES: Final = FileKeys()


class KeyRevoked(Refused):
    """The controller takes this key no more, since a certificate of it was revoked."""


def enrol(token: str, state: Path, keys: KeyStore = _FILES, now: datetime | None = None) -> Identity:
    """Redeem the token, and keep what it gives in the state folder: identity, and the roots of trust.

    A device that was enrolled with this token before is left as it is. After a power cut anywhere, run it again
    with the same token within ten minutes; later, with a new one. Raises IdentityError, StateDamaged, OSError.
    """
    now = now or datetime.now(timezone.utc)
    try:
        parsed = enrolment_token.parse(token)
        ca = x509.load_der_x509_certificate(parsed.ca_der)
    except enrolment_token.TokenError as error:
        raise IdentityError(str(error)) from error
    except ValueError as error:
        raise IdentityError("the enrolment token is damaged: it holds no certificate; copy it again, whole") from error
    folder = state / FOLDER
    secret_sha256 = hashlib.sha256(parsed.secret.encode()).hexdigest()
    before = enrolment(folder)
    if before is not None and before["device"] != parsed.device:
        raise IdentityError(
            f"{state} belongs to device {before['device']}, and the token is for {parsed.device};"
            " give each device a state folder of its own"
        )
    if before is not None and before["token_sha256"] == secret_sha256:
        identity = Identity.load(state, keys)
        # A token without a secret is the same each time, and may be for a device that can no more come back.
        if parsed.secret or now < identity.life.not_after:
            return identity
    if before is not None and not _same_ca(folder / CA_FILE, parsed.ca_der):
        # Before the token is spent for nothing.
        raise IdentityError(
            f"{state} belongs to fleet {before['fleet']}, and the token is of another controller; give this device"
            " a state folder of its own, or remove the old one"
        )
    _check_clock(ca, now)
    pairs = Pairs(folder, keys)
    pair, key, answer = _redeemed(parsed, ca, pairs, keys, now)
    leaf = _check_answer(answer, parsed, ca, key.public_key())
    _trust(state, answer, leaf.not_valid_before_utc)
    durable.write(pair.certificate, answer.certificate_chain_pem)
    durable.write(folder / CA_FILE, ca.public_bytes(serialization.Encoding.PEM))
    if pair != pairs.current():
        # Before the document: who is cut off between the two asks again with the same token, and with this key first.
        pairs.use(pair)
    document = {
        "device": answer.device,
        "fleet": answer.fleet,
        "controller_address": answer.controller_address,
        "mqtt_address": answer.mqtt_address,
        "enrolment_address": parsed.address,
        "token_sha256": secret_sha256,
    }
    durable.write(folder / ENROLMENT_FILE, canonical.encode(document))
    return Identity.load(state, keys)


def ask(address: str, ca_pem: bytes, secret: str, csr: bytes, cancellation: Cancellation) -> Any:
    """What the enrolment service at `address` answers; without a secret, the key of the request is the proof.

    Raises LinkDown, Refused, KeyRevoked among them.
    """
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca_pem)) as channel:
        stub: Any = enrolment_pb2_grpc.EnrolmentStub(channel)  # generated code has no types
        call = stub.Enrol.future(enrolment_pb2.EnrolRequest(token=secret, csr_der=csr), timeout=DEADLINE_S)
        try:
            with cancellation.calling(call.cancel):
                return call.result()
        except grpc.FutureCancelledError as error:
            raise LinkDown("given up") from error
        except grpc.RpcError as error:
            details = (call.details() or "")[:500]
            if call.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise Refused(details) from error
            if call.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise KeyRevoked(details) from error
            raise LinkDown(f"{call.code().name.lower().replace('_', ' ')}: {details}") from error


def _check_clock(ca: x509.Certificate, now: datetime) -> None:
    """TLS would say no more than that the connection failed."""
    made, ends = ca.not_valid_before_utc, ca.not_valid_after_utc
    if not made - SKEW <= now < ends:
        raise IdentityError(
            f"this device's clock says {now:%Y-%m-%d %H:%M} UTC, but the fleet's CA in the token is good from"
            f" {made:%Y-%m-%d} to {ends:%Y-%m-%d}: set the clock, for example by NTP, and enrol again"
        )


def _redeemed(
    token: EnrolmentToken, ca: x509.Certificate, pairs: Pairs, keys: KeyStore, now: datetime
) -> tuple[Pair, DeviceKey, Any]:
    """The pair whose key the controller took, and its answer. A key that was revoked gives way to another one, which
    is durable before it is asked with. Raises IdentityError, OSError."""
    current = pair = pairs.current()
    while True:
        key = keys.make(pair.folder)
        try:
            return pair, key, _redeem(token, ca, key.csr(), now)
        except KeyRevoked as error:
            if not token.secret:
                raise IdentityError(f"the controller refused this device's key: {error}") from error
            if pair != current:
                pairs.forget(pair)  # of a renewal that was cut off before the revocation
            pair = pairs.next()


def _redeem(token: EnrolmentToken, ca: x509.Certificate, csr: bytes, now: datetime) -> Any:
    try:
        return ask(token.address, ca.public_bytes(serialization.Encoding.PEM), token.secret, csr, Cancellation())
    except KeyRevoked:
        raise
    except Refused as error:
        what = "the token" if token.secret else "this device's key"
        raise IdentityError(f"the controller refused {what}: {error}") from error
    except LinkDown as error:
        raise IdentityError(
            f"no enrolment at {token.address} ({error}); check that the controller runs, and that this device's clock"
            f" is right ({now:%Y-%m-%d %H:%M} UTC), and try again"
        ) from error


def _same_ca(path: Path, ca_der: bytes) -> bool:
    """Whether the token's CA is the one known; one that is lost or damaged may be had again."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER) == ca_der
    except (OSError, ValueError):
        return True


def _check_answer(answer: Any, token: EnrolmentToken, ca: x509.Certificate, public: Any) -> x509.Certificate:
    """The device's certificate, when the answer is what the token promised."""
    source = f"the controller at {token.address}"
    if answer.device != token.device or not names.is_id(answer.fleet):
        raise IdentityError(f"{source} enrolled {answer.device!r}, not {token.device!r}")
    chain, device, fleet = answer.certificate_chain_pem, answer.device, answer.fleet
    leaf = check_chain(chain, ca, public, device=device, fleet=fleet, source=source)
    for what, address in (("controller", answer.controller_address), ("MQTT", answer.mqtt_address)):
        if not enrolment_token.is_address(address) and (what == "controller" or address):
            raise IdentityError(f"{source} gave {address!r} as {what} address, not host:port")
    return leaf


def _trust(state: Path, answer: Any, not_before: datetime) -> None:
    from edgewright_agent.trust import TrustRefused
    from edgewright_agent.trust_store import OtherAnchor, TrustStore

    try:
        roots = (answer.image_root, answer.director_root)
        TrustStore.create(state / "agent.sqlite", *roots, not_before=not_before).close()
    except (OtherAnchor, TrustRefused) as error:
        raise IdentityError(str(error)) from error
