"""The fleet's certificates: a root, an online intermediate, and the leaves of controller, operators and devices.

Each client leaf has one SAN URI, and its CN says the same, so that nobody has two names:

    device     CN jetson-01             edgewright://<fleet>/device/jetson-01
    service    CN service.controller-1  edgewright://<fleet>/service/controller-1
    operator   CN operator.admin        edgewright://<fleet>/operator/admin?role=admin

They are for clientAuth only; the controller's server leaf (CN service.controller-1, its hosts as SANs) is for
serverAuth only, so a device cannot pose as the controller. `pki_files` says how files survive a crash.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import durable, names
from edgewright_controller import pki_forms
from edgewright_controller.peers import Peer, PeerRefused, peer
from edgewright_controller.pki_files import AuthorityError, certificate, key, load_certificate, pem

__all__ = ["Authority", "AuthorityError", "CsrRefused", "KeyPair", "OperatorFiles", "Peer", "PeerRefused", "peer"]

SERVER_LIFE: Final = timedelta(days=90)
CLIENT_LIFE: Final = timedelta(days=365)
# Devices renew theirs at its half.
DEVICE_LIFE: Final = timedelta(days=30)
OPERATOR_LIFE: Final = timedelta(days=30)
MAX_CSR_BYTES: Final = 4096


class CsrRefused(ValueError):
    """What the device sent is not a request that may be signed."""


@dataclass(frozen=True)
class KeyPair:
    """Paths of a private key and of the chain (leaf, intermediate), both PEM."""

    key: Path
    chain: Path


@dataclass(frozen=True)
class OperatorFiles:
    """What an operator's client needs: its key, its chain, and the CA that the controller's chain ends in."""

    key: Path
    chain: Path
    ca: Path


class Authority:
    """Issues every certificate of one fleet. `open` makes one; safe to use from several threads."""

    def __init__(self, folder: Path, fleet: str, opened: datetime, root: x509.Certificate, middle: x509.Certificate):
        self._folder, self._fleet, self._opened = folder, fleet, opened
        self._root, self._middle = root, middle
        self._issuer = pki_forms.Issuer(key(folder / "intermediate.key"), middle)

    @classmethod
    def open(cls, folder: Path, fleet: str, now: datetime) -> Authority:
        """The authority in `folder`; what is not there is made. A creation that was cut off is completed.

        Raises AuthorityError when a file is lost, damaged, of another key or of another fleet; OSError.
        """
        if not names.is_id(fleet):
            raise AuthorityError(f"{fleet!r} is not a fleet's name")
        durable.make_folder(folder, mode=0o700)
        root_file, middle_file = folder / "root.crt", folder / "intermediate.crt"
        # The root's key may be held elsewhere: it is needed only to issue an intermediate.
        held_here = (folder / "root.key").exists() or not root_file.exists()
        root_key = key(folder / "root.key") if held_here else None
        if root_key is None:
            root = load_certificate(root_file)
        else:
            root = certificate(root_file, root_key, functools.partial(pki_forms.root, fleet, root_key, now))
        if root.subject != pki_forms.authority_subject(fleet, "root"):
            of = root.subject.rfc4514_string()
            raise AuthorityError(f"{root_file} is of another fleet ({of}); this one is {fleet!r}")
        middle_key = key(folder / "intermediate.key", of=middle_file)

        def issue() -> x509.Certificate:
            if root_key is None:
                raise AuthorityError(
                    f"{middle_file} is needed, and the key of {root_file} is not here; take a request to its holder:"
                    " edgewright keys intermediate"
                )
            return pki_forms.intermediate(fleet, middle_key.public_key(), pki_forms.Issuer(root_key, root), now)

        middle = certificate(middle_file, middle_key, issue)
        if root_key is not None and middle.not_valid_after_utc - now < pki_forms.INTERMEDIATE_LIFE / 5:
            middle = issue()
            durable.write(middle_file, pem(middle))
        try:
            middle.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise AuthorityError(
                f"{middle_file} was not issued by {root_file}; restore both from one backup"
            ) from error
        return cls(folder, fleet, now, root, middle)

    @property
    def ca_pem(self) -> bytes:
        """The root certificate: all that a peer needs to check any chain of this fleet."""
        return pem(self._root)

    @property
    def ca_path(self) -> Path:
        """The file of `ca_pem`."""
        return self._folder / "root.crt"

    @property
    def fleet(self) -> str:
        """The fleet that every certificate names."""
        return self._fleet

    @property
    def crl_path(self) -> Path:
        """The file that `write_crl` writes: for the broker, ours or another."""
        return self._folder / "crl.pem"

    def write_crl(self, revoked: Mapping[int, datetime], now: datetime) -> Path:
        """Write the list of revoked serial numbers, in PEM. Raises OSError."""
        made = pki_forms.revocation_list(revoked, self._issuer, now)
        durable.write(self.crl_path, made.public_bytes(serialization.Encoding.PEM))
        return self.crl_path

    def server_certificate(self, hosts: Sequence[str], now: datetime | None = None) -> KeyPair:
        """The controller's own certificate for these host names and addresses.

        Kept on disk; issued anew under the same key when the hosts differ or a third of its life is left.
        `now` is the time of `open` when left out. Raises AuthorityError, OSError.
        """
        if not hosts:
            raise AuthorityError("a server certificate needs at least one host name or address")
        alternatives = tuple(_general_name(host) for host in sorted(set(hosts)))
        form = pki_forms.Leaf(names.CONTROLLER_CN, alternatives, SERVER_LIFE, client=False)
        return self._kept(self._folder, "server", form, now)

    def service_client_certificate(self, cn: str = names.CONTROLLER_CN, now: datetime | None = None) -> KeyPair:
        """The certificate that the controller shows as a client, to the broker. Raises AuthorityError, OSError."""
        service = cn.removeprefix(names.SERVICE_PREFIX)
        if service == cn or not names.is_id(service):
            raise AuthorityError(f"{cn!r} is not a service's name; one is {names.CONTROLLER_CN!r}")
        form = self._client(cn, f"edgewright://{self._fleet}/service/{service}", CLIENT_LIFE)
        return self._kept(self._folder, f"client-{service}", form, now)

    def operator_certificate(
        self, name: str = "admin", *, role: str = "admin", folder: Path | None = None, now: datetime | None = None
    ) -> OperatorFiles:
        """Key, chain and CA of an operator in `folder` (`operator` beside the authority's, when left out).

        Issued anew under the same key when a third of its life is left. Raises AuthorityError, OSError.
        """
        if not (names.is_id(name) and names.is_id(role)):
            raise AuthorityError(f"operator {name!r} with role {role!r}: names and roles are plain ids")
        folder = folder or self._folder.parent / "operator"
        durable.make_folder(folder, mode=0o700)
        uri = f"edgewright://{self._fleet}/operator/{name}?role={role}"
        pair = self._kept(folder, name, self._client(names.OPERATOR_PREFIX + name, uri, CLIENT_LIFE), now)
        ca = folder / "ca.crt"
        if not ca.exists() or ca.read_bytes() != self.ca_pem:
            durable.write(ca, self.ca_pem)
        return OperatorFiles(pair.key, pair.chain, ca)

    def issue_device(self, device: str, csr_der: bytes, now: datetime) -> bytes:
        """The chain (PEM: leaf, intermediate) for a device's own key. Names in the request are ignored.

        Raises CsrRefused when the request is damaged, of another kind of key, or not signed by its key.
        """
        if not names.is_id(device):
            raise CsrRefused(f"{device!r} is not a device id")
        form = self._client(device, names.device_uri(self._fleet, device), DEVICE_LIFE)
        return self._chain(form, requested_key(csr_der), now)

    def issue_operator(self, name: str, role: str, csr_der: bytes, now: datetime) -> bytes:
        """The chain (PEM: leaf, intermediate) for an operator's own key. Raises CsrRefused."""
        if not (names.is_id(name) and names.is_id(role)):
            raise CsrRefused(f"operator {name!r} with role {role!r}: names and roles are plain ids")
        uri = f"edgewright://{self._fleet}/operator/{name}?role={role}"
        return self._chain(self._client(names.OPERATOR_PREFIX + name, uri, OPERATOR_LIFE), requested_key(csr_der), now)

    def _client(self, cn: str, uri: str, life: timedelta) -> pki_forms.Leaf:
        return pki_forms.Leaf(cn, (x509.UniformResourceIdentifier(uri),), life, client=True)

    def _kept(self, folder: Path, stem: str, form: pki_forms.Leaf, now: datetime | None) -> KeyPair:
        now = now or self._opened
        # The key stays when the certificate changes, so replacing one file is the whole change. A damaged leaf is
        # replaced too: unlike a key it holds nothing that is not known here.
        pair = KeyPair(folder / f"{stem}.key", folder / f"{stem}.crt")
        public = key(pair.key).public_key()
        held = pair.chain.read_bytes() if pair.chain.exists() else b""
        if not pki_forms.says(held, form, public, self._middle, now):
            durable.write(pair.chain, self._chain(form, public, now))
        return pair

    def _chain(self, form: pki_forms.Leaf, public: ec.EllipticCurvePublicKey, now: datetime) -> bytes:
        return pem(pki_forms.leaf(form, public, self._issuer, now)) + pem(self._middle)


def requested_key(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key in a signing request whose sender holds it. Raises CsrRefused."""
    if len(csr_der) > MAX_CSR_BYTES:
        raise CsrRefused(f"a signing request of {len(csr_der)} bytes; at most {MAX_CSR_BYTES}")
    try:
        csr = x509.load_der_x509_csr(csr_der)
        public, possessed = csr.public_key(), csr.is_signature_valid
    except Exception as error:  # by input the parser raises ValueError, UnsupportedAlgorithm and errors of its own
        raise CsrRefused(f"not a signing request: {error}") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise CsrRefused("the key of a signing request must be of type P-256")
    if not possessed:
        raise CsrRefused("the signing request is not signed by its own key")
    return public


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise AuthorityError(f"{host!r} is neither a host name nor an address") from error
