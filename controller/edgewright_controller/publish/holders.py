"""People who hold keys that are not online: each has one sealed file with a key for every offline duty.

A duty is a role of a repository that signs rarely and by several people: the roots and the list of delegations. Keys of
holders say whose they are inside the signed metadata (`x-edgewright-holder`), so that who must sign is readable
from the metadata alone, and the controller can tell a key that is held elsewhere from one that it has lost.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from edgewright_contract import canonical, names
from edgewright_controller import sealed
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.sealed import Work

HOLDER: Final = "x-edgewright-holder"
DUTIES: Final = ("image-root", "image-targets", "image-mandate", "director-root")
CA: Final = "root-ca"
_FORMAT: Final = "edgewright-holder-1"


@dataclass(frozen=True)
class Holder:
    """A holder with what signs for it, by duty. `authority`: the root authority's key, if this file has it."""

    name: str
    fleet: str
    signers: Mapping[str, Signer]
    authority: EllipticCurvePrivateKey | None = None

    @property
    def public(self) -> HolderKeys:
        """What others need of it."""
        return HolderKeys(self.name, self.fleet, {duty: signer.public_key for duty, signer in self.signers.items()})


@dataclass(frozen=True)
class HolderKeys:
    """A holder's public keys, by duty."""

    name: str
    fleet: str
    keys: Mapping[str, Key]


def new(name: str, fleet: str) -> Holder:
    """A holder with fresh keys for every duty. Raises PublishError for a name that is none."""
    if not names.is_id(name):
        raise PublishError(f"{name!r} is not a holder's name; one looks like alice")
    return Holder(name, fleet, {duty: _marked(Ed25519PrivateKey.generate(), name) for duty in DUTIES})


def holder_of(key: Key) -> str:
    """Who holds this key, as the signed metadata says; empty for a key that is not a holder's."""
    name = key.unrecognized_fields.get(HOLDER)
    return name if isinstance(name, str) else ""


def encode(holder: Holder, passphrase: str) -> bytes:
    """The file of a holder whose keys are in hand. Raises SealedError for a passphrase that is too short."""
    sealed.check_passphrase(passphrase)
    work = Work.new()
    beside = {**_public_document(holder.public), "work": sealed.work_to(work)}
    inside = {duty: one for duty, one in holder.signers.items() if isinstance(one, CryptoSigner)}
    secret = {duty: one.private_bytes.decode("ascii") for duty, one in inside.items()}
    if holder.authority is not None:
        plain = serialization.NoEncryption()
        encoded = holder.authority.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        secret[CA] = encoded.decode("ascii")
    closed = sealed.seal(work.key(passphrase), canonical.encode(secret), canonical.encode(beside))
    return json.dumps({**beside, "sealed": base64.b64encode(closed).decode()}, indent=1).encode() + b"\n"


def decode(content: bytes, passphrase: str) -> Holder:
    """The holder of a file. Raises SealedError for another passphrase or a changed file, PublishError for another kind
    of file, or a module that does not answer.

    A holder whose keys are in a hardware module or a cloud's vault has a file with `uris` (duty → a URI that
    securesystemslib knows: hsm:, awskms:, gcpkms:, azurekms:, …) in place of the sealed part.
    """
    document = _document(content)
    public = _public(document)
    if "uris" in document:
        return Holder(public.name, public.fleet, _elsewhere(document["uris"], public.keys))
    try:
        closed = base64.b64decode(document.pop("sealed"), validate=True)
    except (KeyError, ValueError, TypeError) as error:
        raise PublishError("it has the public keys of a holder only; the holder's own file signs") from error
    work = sealed.work_from(document.get("work"))
    secret = json.loads(sealed.unseal(work.key(passphrase), closed, canonical.encode(document)))
    authority: Any = None
    if CA in secret:
        authority = serialization.load_pem_private_key(secret[CA].encode(), password=None)
    signers = {duty: _inside(secret, duty, key) for duty, key in public.keys.items()}
    return Holder(public.name, public.fleet, signers, authority)


def is_sealed(content: bytes) -> bool:
    """Whether a passphrase opens this holder's file. Raises PublishError."""
    return "sealed" in _document(content)


def encode_public(keys: HolderKeys) -> bytes:
    """The holder's public keys as a file of their own, to be sent by whatever way."""
    return json.dumps(_public_document(keys), indent=1).encode() + b"\n"


def decode_public(content: bytes) -> HolderKeys:
    """The public keys in a holder's file, sealed or public. Raises PublishError."""
    return _public(_document(content))


def check_distinct(holders: Iterable[HolderKeys], fleet: str) -> None:
    """Raise PublishError when two holders have one name or one key, or one is of another fleet."""
    seen: dict[str, str] = {}
    for holder in holders:
        if holder.fleet != fleet:
            raise PublishError(f"holder {holder.name} is of fleet {holder.fleet!r}, not {fleet!r}")
        for mark in (holder.name, *(key.keyid for key in holder.keys.values())):
            if mark in seen:
                raise PublishError(f"holder {holder.name}: the name or a key is that of {seen[mark]} too")
            seen[mark] = holder.name


def _marked(private: Ed25519PrivateKey, name: str) -> CryptoSigner:
    plain = CryptoSigner(private).public_key
    assert isinstance(plain, SSlibKey)
    return CryptoSigner(private, SSlibKey(plain.keyid, plain.keytype, plain.scheme, plain.keyval, {HOLDER: name}))


def _elsewhere(uris: Any, keys: Mapping[str, Key]) -> dict[str, Signer]:
    try:
        return {duty: Signer.from_priv_key_uri(str(uris[duty]), key) for duty, key in keys.items() if duty in uris}
    except Exception as error:  # each kind of module has errors of its own
        raise PublishError(f"the module that its keys are in does not answer: {error}") from error


def _inside(secret: Mapping[str, str], duty: str, key: Key) -> Signer:
    loaded = serialization.load_pem_private_key(secret[duty].encode(), password=None)
    if not isinstance(loaded, Ed25519PrivateKey) or not isinstance(key, SSlibKey):
        raise PublishError(f"its key for {duty} is not of kind Ed25519")
    return CryptoSigner(loaded, key)


def _public_document(keys: HolderKeys) -> dict[str, Any]:
    listed = {duty: {"keyid": key.keyid, **key.to_dict()} for duty, key in keys.keys.items()}
    return {"format": _FORMAT, "fleet": keys.fleet, "holder": keys.name, "public": listed}


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
        if document["format"] != _FORMAT:
            raise PublishError(f"a holder's file of format {document['format']!r}; this version reads {_FORMAT}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PublishError(f"not a holder's file: {error!r}") from error
    return dict(document)


def _public(document: Mapping[str, Any]) -> HolderKeys:
    try:
        keys = {
            duty: _key(document["public"][duty], document["holder"]) for duty in DUTIES if duty in document["public"]
        }
        return HolderKeys(str(document["holder"]), str(document["fleet"]), keys)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise PublishError(f"not a holder's file: {error!r}") from error


def _key(listed: Mapping[str, Any], name: str) -> Key:
    fields = dict(listed)
    key = Key.from_dict(str(fields.pop("keyid")), fields)
    if holder_of(key) != name:
        raise ValueError(f"a key that is not marked as {name}'s")
    return key
