"""The device's private key, wherever it is held: in a file, or in hardware that never gives it out.

The agent asks a key four things, `DeviceKey`, and a `KeyStore` for the key of a folder. `FileKeys` is the one there is.
What a store on a TPM or a PKCS#11 token needs, none of it proven on hardware:

  the store   keeps in the folder how the key is found again (a URI, a TPM blob), makes a key for each folder, and
              deletes it in `drop`: each certificate is for a new key, so one fixed slot is not enough
  csr         `csr_of` with an EllipticCurvePrivateKey (cryptography's own interface) whose `sign` asks the hardware
  gRPC        `signed_elsewhere`: gRPC brings its own BoringSSL, which loads no providers, but asks a function for each
              signature. The function is experimental in grpcio; it is proven here with a key that gRPC never sees
  MQTT        Python's ssl asks nobody for a signature; but OpenSSL 3 with a provider (pkcs11-provider, tpm2-openssl) in
              its configuration loads a PEM file that only names the key, so `use_in` gives it that file
"""

from __future__ import annotations

import contextlib
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import durable

KEY_FILE: Final = "key.pem"
AGAIN: Final = "enrol the device again: edgewright-agent enroll --token …"


class IdentityError(Exception):
    """The device has no usable identity, or could not get one; the text says what to do."""


class DeviceKey(Protocol):
    """A P-256 key that signs."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""

    def csr(self) -> bytes:
        """A signing request (DER) that proves possession; the controller ignores what else it says."""

    def channel_credentials(self, ca: bytes, chain: bytes) -> Any:
        """gRPC's credentials for a channel, with this chain and this root (PEM)."""

    def use_in(self, context: ssl.SSLContext, chain: Path) -> None:
        """Show the chain (PEM) in connections of this context. Raises OSError, ssl.SSLError."""


class KeyStore(Protocol):
    """Where keys are made and found again, each by its folder."""

    def has(self, folder: Path) -> bool:
        """Whether a key was made for this folder."""

    def make(self, folder: Path) -> DeviceKey:
        """The key of this folder, made when absent and durable when this returns. Raises IdentityError, OSError."""

    def load(self, folder: Path) -> DeviceKey:
        """The key of this folder. Raises IdentityError when it is lost or damaged."""

    def drop(self, folder: Path) -> None:
        """Destroy the key of this folder, if there is one. Raises OSError."""


@dataclass(frozen=True)
class FileKey:
    """A key in a PEM file that only its owner reads."""

    path: Path
    pem: bytes = field(repr=False)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """See DeviceKey."""
        return self._private().public_key()

    def csr(self) -> bytes:
        """See DeviceKey."""
        return csr_of(self._private())

    def channel_credentials(self, ca: bytes, chain: bytes) -> Any:
        """See DeviceKey."""
        import grpc

        return grpc.ssl_channel_credentials(ca, self.pem, chain)

    def use_in(self, context: ssl.SSLContext, chain: Path) -> None:
        """See DeviceKey."""
        context.load_cert_chain(chain, self.path)

    def _private(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self.pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{self.path} is lost or damaged; remove it and {AGAIN}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise IdentityError(f"{self.path} is not an elliptic-curve key of type P-256; remove it and {AGAIN}")
        return key


class FileKeys:
    """Keys in files, `key.pem` in each folder."""

    def has(self, folder: Path) -> bool:
        """See KeyStore."""
        return (folder / KEY_FILE).exists()

    def make(self, folder: Path) -> FileKey:
        """See KeyStore."""
        if not self.has(folder):
            durable.make_folder(folder, mode=0o700)
            plain = serialization.NoEncryption()
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
            durable.write(folder / KEY_FILE, pem, mode=0o600)
        return self.load(folder)

    def load(self, folder: Path) -> FileKey:
        """See KeyStore."""
        path = folder / KEY_FILE
        try:
            key = FileKey(path, path.read_bytes())
        except OSError as error:
            raise IdentityError(f"{path} is lost or damaged; remove it and {AGAIN}") from error
        key.public_key()
        return key

    def drop(self, folder: Path) -> None:
        """See KeyStore."""
        durable.unlink(folder / KEY_FILE)


def csr_of(private: ec.EllipticCurvePrivateKey) -> bytes:
    """A signing request (DER) without names, signed by a key that may be anywhere."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def signed_elsewhere(private: ec.EllipticCurvePrivateKey, ca: bytes, chain: bytes) -> Any:
    """gRPC's credentials for a key of which gRPC sees the signatures only. Raises IdentityError where grpcio is older.

    What `private.sign` raises ends the handshake: the call is UNAVAILABLE, with the error in its details.
    """
    from grpc import experimental

    make = getattr(experimental, "ssl_channel_credentials_with_custom_signer", None)
    if make is None:
        raise IdentityError("this grpcio takes no keys from hardware; install grpcio 1.85 or newer")

    def sign(data: bytes, algorithm: object, done: Callable[[Any], None]) -> bytes:
        # A P-256 certificate leaves TLS one choice: ECDSA with SHA-256, in DER.
        return private.sign(data, ec.ECDSA(hashes.SHA256()))

    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.simplefilter("ignore", experimental.ExperimentalApiWarning)
        return make(private_key_sign_fn=sign, root_certificates=ca, certificate_chain=chain)
