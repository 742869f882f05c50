"""A controller's state folder, opened for a ceremony: nobody else uses it meanwhile, and what is done is entered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from edgewright_contract import durable
from edgewright_controller import authority_request, pki_files
from edgewright_controller.authority_request import AuthorityRequest
from edgewright_controller.director import Director
from edgewright_controller.ledger import Ledger, audit
from edgewright_controller.ledger import fleet as ledger_fleet
from edgewright_controller.pki import Authority
from edgewright_controller.publish import ceremony, keys
from edgewright_controller.publish.ceremony import Repositories
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.holders import CA, Holder, holder_of
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.publish.key_status import Look
from edgewright_controller.publish.signing_request import SigningRequest
from edgewright_controller.state_lock import StateLock
from edgewright_controller.unix_time import unix_ms


@dataclass(frozen=True)
class CeremonyState:
    """Everything that a ceremony touches."""

    state: Path
    fleet: str
    repositories: Repositories
    ledger: Ledger
    now: datetime

    def root_authority(self) -> Holder | None:
        """The root authority's key as a holder, None when it is not here any more."""
        path = self.state / "pki" / "root.key"
        if not path.exists():
            return None
        own: EllipticCurvePrivateKey = pki_files.key(path)
        return Holder(CA, self.fleet, {}, own)

    def publish(self, request: SigningRequest, *, by: str) -> None:
        """Take up a complete request, and enter it. Raises PublishError, OSError, LedgerError."""
        ceremony.publish(self.repositories, request, self.now)
        signers = {
            holder_of(key) or key.keyid[:12]
            for change in request.changes
            for count in request.counts(change)
            for key in count.signed
        }
        self._enter(by, f"{request.why}; signed by {', '.join(sorted(signers))}")

    def ask_for_intermediate(self) -> AuthorityRequest:
        """A request for a new certificate of the intermediate. Raises AuthorityError."""
        root = pki_files.load_certificate(self.state / "pki" / "root.crt")
        return authority_request.ask(self.fleet, self._intermediate_key(), root)

    def install_intermediate(self, answered: AuthorityRequest) -> datetime:
        """Take up the certificate that a request came back with; when it ends. Raises AuthorityError, OSError."""
        folder = self.state / "pki"
        root = pki_files.load_certificate(folder / "root.crt")
        made = authority_request.signed(answered, self._intermediate_key(), root)
        durable.write(folder / "intermediate.crt", pki_files.pem(made))
        self._enter("keys publish", f"the intermediate authority, good until {made.not_valid_after_utc:%Y-%m-%d}")
        return made.not_valid_after_utc

    def _enter(self, by: str, detail: str) -> None:
        said = {"actor": f"host {by}", "action": "keys.publish", "detail": detail}
        self.ledger.write_now(lambda c: audit.append(c, **said, now_ms=unix_ms(self.now)))

    def _intermediate_key(self) -> EllipticCurvePrivateKey:
        path = self.state / "pki" / "intermediate.key"
        return pki_files.key(path, of=path.with_suffix(".crt"))

    def forget_online_keys(self, *, authority: bool = False) -> list[Path]:
        """Remove the keys that holders have now; with `authority`, also the root authority's.

        The caller knows a sealed copy of that. Raises OSError.
        """
        removed = []
        root = self.state / "pki" / "root.key"
        if authority and root.exists():
            keys.remove(root)
            removed.append(root)
        return removed + ceremony.forget_online_keys(self.repositories)


@contextmanager
def opened(state: Path, fleet: str, now: datetime) -> Iterator[CeremonyState]:
    """The state folder, locked, and made when absent and `fleet` is given.

    Raises StateInUse, PublishError, AuthorityError, LedgerError, OSError.
    """
    if not (state / "ledger.sqlite").exists() and not fleet:
        raise PublishError(f"{state} is no controller's state folder; for a new fleet, give --fleet")
    durable.make_folder(state, mode=0o700)
    with ExitStack() as stack:
        stack.callback(StateLock.take(state).release)
        ledger = Ledger.open(state / "ledger.sqlite")
        stack.callback(ledger.close)
        name = fleet or ledger.read_now(ledger_fleet.name) or ""
        if not name:
            raise PublishError(f"{state}: its ledger is of no fleet yet; give --fleet")
        ledger.write_now(lambda c: ledger_fleet.bind(c, name, unix_ms(now)))
        Authority.open(state / "pki", name, now)
        image = ImageRepository.open(state / "image", state / "keys", now)
        director = Director.open(state / "director", state / "keys", name, now)
        yield CeremonyState(state, name, Repositories(name, image, director), ledger, now)


def look(state: Path) -> Look:
    """What stands, for `keys status`: only read, also beside a controller that runs.

    Raises PublishError, AuthorityError, OSError.
    """
    if not (state / "image" / "timestamp.json").exists():
        raise PublishError(f"{state} is no controller's state folder, or its controller was never started")
    return Look.read(state)
