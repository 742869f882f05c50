"""One round of python-tuf's client over one repository, in a folder made for it and thrown away after it.

The client reads what is held from that folder, asks for what is new, and gets it from the check-in's answer, then
from what is held. Nothing it writes is kept as a file: its renames are not synced, and with half-written files it can
be talked into an older repository. The caller keeps the bytes in its database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Role, Root, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edgewright_agent.trust import MetadataStale, Reason, Repository, RoleMark, SignedTarget, Statement, TrustRefused
from edgewright_contract import canonical, digest
from edgewright_contract.targets import BUILDER, DIRECTOR_KEYS

MAX_ROOTS: Final = 256
# Bytes a role's file may have; a check-in's answer carries them all.
LIMITS: Final[Mapping[Repository, Mapping[str, int]]] = {
    Repository.IMAGE: {"root": 64 << 10, "timestamp": 16 << 10, "snapshot": 64 << 10, "targets": 4 << 20},
    Repository.DIRECTOR: {"root": 64 << 10, "timestamp": 16 << 10, "snapshot": 64 << 10, "targets": 256 << 10},
}
# A path of a model that nobody published: looking it up loads the builder's metadata like any other path.
_NO_MODEL: Final = "models/none/none/" + "0" * 64 + ".bundle"


@dataclass(frozen=True)
class HeldFile:
    """Metadata that a former round trusted."""

    role: str
    version: int
    content: bytes


@dataclass(frozen=True)
class Trusted:
    """What a round ended with: the files, newest of each role and every root, who speaks for each role, and until
    when all of it is good."""

    files: tuple[HeldFile, ...]
    roles: Mapping[tuple[Repository, str], RoleMark]
    until: datetime


class Round:
    """A refreshed repository. Raises TrustRefused, MetadataStale, OSError while it is made."""

    def __init__(
        self,
        repository: Repository,
        anchor: bytes,
        *,
        held: tuple[HeldFile, ...],
        answer: Mapping[str, bytes],
        reference: datetime,
        folder: Path,
    ):
        """`anchor`: the root that the device was enrolled with. `answer`: name → content. `folder`: empty."""
        self._repository, self._folder = repository, folder
        limits = LIMITS[repository]
        _bound(repository, answer)
        _materialise(held, folder)
        config = UpdaterConfig(
            max_root_rotations=MAX_ROOTS,
            max_delegations=1,
            root_max_length=limits["root"],
            timestamp_max_length=limits["timestamp"],
            snapshot_max_length=limits["snapshot"],
            targets_max_length=limits["targets"],
        )
        with _Explained(repository):
            self._client = Updater(
                str(folder),
                f"edgewright://{repository.name.lower()}/",
                fetcher=_Answer(answer, held),
                config=config,
                bootstrap=anchor,
            )
            # The client takes no time as an argument. It reads the clock once, here, when it is made; everything it
            # judges comes later, in refresh.
            self._client._trusted_set.reference_time = reference
            self._client.refresh()

    def statement(self) -> Statement:
        """What the director says. Only its own targets count; it delegates to nobody."""
        targets = self._read("targets", Targets).signed
        device, fleet, generation = (targets.unrecognized_fields.get(key) for key in DIRECTOR_KEYS)
        listed = tuple(
            SignedTarget(path, target.length, target.hashes, target.custom) for path, target in targets.targets.items()
        )
        return Statement(device, fleet, generation, listed)

    def look_up(self, path: str | None) -> SignedTarget | None:
        """What the image repository says of `path`, by itself or by its builder; None when it does not list it.

        None for a path looks up nothing, but refreshes the builder's metadata all the same. Raises TrustRefused,
        MetadataStale.
        """
        with _Explained(self._repository):
            found = self._client.get_targetinfo(path or _NO_MODEL)
        if found is None or path is None:
            return None
        for role in ("targets", BUILDER):
            if self._read(role, Targets).signed.targets.get(path) == found:
                return SignedTarget(path, found.length, found.hashes, found.custom)
        raise TrustRefused(Reason.UNVERIFIED, f"{path} is listed by a role that nobody here knows")

    def trusted(self) -> Trusted:
        """What is to be kept. Call it after the look-ups."""
        root: Metadata[Root] = Metadata.from_bytes((self._folder / "root.json").read_bytes())
        chain = range(1, root.signed.version + 1)
        history = self._folder / "root_history"
        paths = {version: history / f"{version}.root.json" for version in chain}
        files = [HeldFile("root", version, path.read_bytes()) for version, path in paths.items() if path.exists()]
        roles = {(self._repository, "root"): RoleMark(root.signed.version, "")}
        speakers, until = dict(root.signed.roles), root.signed.expires
        for role in ("timestamp", "snapshot", "targets", BUILDER):
            path = self._folder / f"{role}.json"
            if not path.exists():
                continue
            content = path.read_bytes()
            read: Metadata[Any] = Metadata.from_bytes(content)
            files.append(HeldFile(role, read.signed.version, content))
            until = min(until, read.signed.expires)
            roles[self._repository, role] = mark(read.signed.version, speakers[role])
            if role == "targets" and read.signed.delegations and read.signed.delegations.roles:
                speakers.update(read.signed.delegations.roles)
        return Trusted(tuple(files), roles, until)

    def _read(self, role: str, kind: type[Targets]) -> Metadata[Targets]:
        read: Metadata[Any] = Metadata.from_bytes((self._folder / f"{role}.json").read_bytes())
        if not isinstance(read.signed, kind):
            raise TrustRefused(Reason.UNVERIFIED, f"{self._repository.name.lower()} {role} is metadata of another kind")
        return read


class _Answer(FetcherInterface):
    """Files from the check-in's answer, then from what is held; what is in neither is "not found"."""

    def __init__(self, answer: Mapping[str, bytes], held: tuple[HeldFile, ...]):
        self._files = {_name(file): file.content for file in held} | dict(answer)

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        content = self._files.get(name)
        if content is None:
            raise DownloadHTTPError(f"{name} was neither sent nor held", 404)
        return iter([content])


class _Explained:
    """Turns what python-tuf raises into the two things that a caller does next."""

    def __init__(self, repository: Repository):
        self._name = repository.name.lower()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ExpiredMetadataError):
            raise MetadataStale(f"{self._name} repository: {error}") from error
        if isinstance(error, DownloadHTTPError):
            raise TrustRefused(Reason.INCOMPLETE, f"{self._name} repository: {error}") from error
        if isinstance(error, RepositoryError | DownloadError):
            raise TrustRefused(Reason.UNVERIFIED, f"{self._name} repository: {error}") from error


def mark(version: int, speaker: Role) -> RoleMark:
    """The mark of a role at this version, whose keys are `speaker`'s."""
    return RoleMark(version, digest.of_bytes(canonical.encode([sorted(speaker.keyids), speaker.threshold])))


def _name(file: HeldFile) -> str:
    return "timestamp.json" if file.role == "timestamp" else f"{file.version}.{file.role}.json"


def _bound(repository: Repository, answer: Mapping[str, bytes]) -> None:
    name = repository.name.lower()
    if len(answer) > MAX_ROOTS + len(LIMITS[repository]) + 1:
        raise TrustRefused(Reason.UNVERIFIED, f"{name} repository: {len(answer)} files in one answer")
    for file, content in answer.items():
        # The builder's list has the bound of targets; so has a name that nobody will ask for.
        role = file.removesuffix(".json").rpartition(".")[2]
        limit = LIMITS[repository].get(role, LIMITS[repository]["targets"])
        if len(content) > limit:
            raise TrustRefused(
                Reason.UNVERIFIED, f"{name} repository: {file[:80]} has {len(content)} bytes; at most {limit}"
            )


def _materialise(held: tuple[HeldFile, ...], folder: Path) -> None:
    history = folder / "root_history"
    history.mkdir()
    for file in held:
        path = history / f"{file.version}.root.json" if file.role == "root" else folder / f"{file.role}.json"
        path.write_bytes(file.content)
