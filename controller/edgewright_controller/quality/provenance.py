"""Where an artifact comes from, as an in-toto statement with SLSA provenance. Pure.

The form is in-toto's Statement v1 with the predicate of SLSA v1.0, in canonical JSON, so that its sha256 names it. That
digest is signed with the artifact (`custom` of the image target), which is what makes the statement authentic: it needs
no envelope and no key of its own. Its subject is the artifact's bundle, the list of its files with their digests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import quote

from edgewright_contract import canonical, digest

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:edgewright:compile:v1"
BUILDER: Final = "urn:edgewright:controller:"
MAX_BYTES: Final = 4 << 20

# What a source was made of by several things is told, but names no one place.
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")
_PLATFORM: Final = "platform"
_SOURCE: Final = "source"
_CALIBRATION: Final = "calibration"
_CARD: Final = "report card"


class ProvenanceError(ValueError):
    """The document is not a provenance statement of this controller's form."""


@dataclass(frozen=True)
class File:
    """A file that was read: its name in the source, and the sha256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """One build as it is told.

    `recipe` is its JSON, `source` the digest of the source's list of files, `origin` where that came from or what it
    was made of, empty for a folder; `toolchain` has versions by package, and the platform; `card` is the report card's
    sha256. `edgewright` is the controller's version, `invocation` names this run of the build.
    """

    artifact: str
    build_key: str
    fleet: str
    recipe: Mapping[str, Any]
    source: str
    files: tuple[File, ...]
    toolchain: Mapping[str, str]
    edgewright: str
    started: datetime
    finished: datetime
    origin: str = ""
    requantised: bool = False
    calibration: str = ""
    card: str = ""
    invocation: str = ""


def statement(told: Provenance) -> bytes:
    """The statement's one spelling."""
    external: dict[str, Any] = {"source": {"digest": told.source}, "recipe": dict(told.recipe)}
    if told.origin:
        external["source"]["origin"] = told.origin
    if told.requantised:
        external["source"]["requantised"] = True
    if told.calibration:
        external["calibration"] = {"digest": told.calibration}
    internal: dict[str, Any] = {"buildKey": told.build_key}
    if _PLATFORM in told.toolchain:
        internal[_PLATFORM] = told.toolchain[_PLATFORM]
    document = {
        "_type": STATEMENT,
        "subject": [{"name": f"{told.artifact}.bundle", "digest": {"sha256": told.artifact}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": external,
                "internalParameters": internal,
                "resolvedDependencies": list(_dependencies(told)),
            },
            "runDetails": {
                "builder": {"id": BUILDER + quote(told.fleet), "version": {"edgewright": told.edgewright}},
                "metadata": {
                    "invocationId": told.invocation or told.build_key,
                    "startedOn": _written(told.started),
                    "finishedOn": _written(told.finished),
                },
                "byproducts": [{"name": _CARD, "digest": {"sha256": told.card}}] if told.card else [],
            },
        },
    }
    return canonical.encode(document)


def parse(data: bytes, sha256: str = "") -> Provenance:
    """What a statement says; with `sha256`, only that very one. Raises ProvenanceError."""
    if len(data) > MAX_BYTES:
        raise ProvenanceError(f"{len(data):,} bytes; a statement has at most {MAX_BYTES:,}")
    if sha256 and digest.of_bytes(data) != sha256:
        raise ProvenanceError(f"its bytes are not those of {sha256[:12]}, which is signed")
    try:
        document = json.loads(data)
        if document["_type"] != STATEMENT or document["predicateType"] != PREDICATE:
            raise ProvenanceError(f"{document['predicateType']!r} is not {PREDICATE}")
        build, run = (document["predicate"][part] for part in ("buildDefinition", "runDetails"))
        if build["buildType"] != BUILD_TYPE:
            raise ProvenanceError(f"build type {build['buildType']!r}; this controller knows {BUILD_TYPE}")
        external, (subject,) = build["externalParameters"], document["subject"]
        source = external["source"]
        found = Provenance(
            artifact=str(subject["digest"]["sha256"]),
            build_key=str(build["internalParameters"]["buildKey"]),
            fleet=str(run["builder"]["id"]).removeprefix(BUILDER),
            recipe=dict(external["recipe"]),
            source=str(source["digest"]),
            files=tuple(
                File(str(one["name"]).removeprefix(f"{_SOURCE}/"), str(one["digest"]["sha256"]))
                for one in build["resolvedDependencies"]
                if str(one.get("name", "")).startswith(f"{_SOURCE}/")
            ),
            toolchain=_toolchain(build),
            edgewright=str(run["builder"]["version"]["edgewright"]),
            started=_read(run["metadata"]["startedOn"]),
            finished=_read(run["metadata"]["finishedOn"]),
            origin=str(source.get("origin", "")),
            requantised=source.get("requantised") is True,
            calibration=str(external.get(_CALIBRATION, {}).get("digest", "")),
            card=next((str(one["digest"]["sha256"]) for one in run["byproducts"] if one.get("name") == _CARD), ""),
            invocation=str(run["metadata"]["invocationId"]),
        )
        if not digest.is_sha256(found.artifact):
            raise ProvenanceError(f"its subject {found.artifact[:80]!r} is no sha256")
    except ProvenanceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProvenanceError(f"not a provenance statement: {error!r}") from error
    return found


def purl(package: str, version: str) -> str:
    """A package of a toolchain as a package URL."""
    return f"pkg:pypi/{quote(package.lower().replace('_', '-'))}@{quote(version, safe='.')}"


def _dependencies(told: Provenance) -> Iterable[dict[str, Any]]:
    whole: dict[str, Any] = {"name": _SOURCE, "digest": {"sha256": told.source}}
    yield whole | ({"uri": told.origin} if _URI.fullmatch(told.origin) else {})
    for file in told.files:
        yield {"name": f"{_SOURCE}/{file.name}", "digest": {"sha256": file.sha256}}
    if told.calibration:
        yield {"name": _CALIBRATION, "digest": {"sha256": told.calibration}}
    for package, version in sorted(told.toolchain.items()):
        if package != _PLATFORM:
            yield {"name": package, "uri": purl(package, version), "annotations": {"version": version}}


def _toolchain(build: Mapping[str, Any]) -> dict[str, str]:
    packages = {
        str(one["name"]): str(one["annotations"]["version"])
        for one in build["resolvedDependencies"]
        if str(one.get("uri", "")).startswith("pkg:")
    }
    internal = build["internalParameters"]
    return packages | ({_PLATFORM: str(internal[_PLATFORM])} if _PLATFORM in internal else {})


def _written(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _read(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
