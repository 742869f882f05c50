"""Provenance statements: the form that other tools read, one spelling, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from typing import Any

import pytest

from edgewright_contract import digest
from edgewright_controller.quality import provenance
from edgewright_controller.quality.provenance import File, Provenance, ProvenanceError

BEGAN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)
TOLD = Provenance(
    artifact="a" * 64,
    build_key="b" * 64,
    fleet="plant-7",
    recipe={"runtime": "gguf", "quantization": "IQ2_M", "options": {}},
    source="c" * 64,
    files=(File("config.json", "1" * 64), File("model.safetensors", "2" * 64)),
    toolchain={"gguf": "0.19.0+0123456789abcdef", "llama-cpp-python": "0.3.36", "platform": "linux-x86_64"},
    edgewright="0.1.0",
    started=BEGAN,
    finished=BEGAN.replace(minute=5),
    origin="hf://org/name@0123abc",
    requantised=True,
    calibration="d" * 64,
    card="e" * 64,
    invocation="run 7",
)


def test_the_statement_has_the_form_that_in_toto_and_slsa_name() -> None:
    document = json.loads(provenance.statement(TOLD))
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    assert document["subject"] == [{"name": f"{'a' * 64}.bundle", "digest": {"sha256": "a" * 64}}]
    build = document["predicate"]["buildDefinition"]
    assert build["externalParameters"]["recipe"]["quantization"] == "IQ2_M"
    assert build["externalParameters"]["calibration"] == {"digest": "d" * 64}
    uris = [one.get("uri") for one in build["resolvedDependencies"]]
    assert "pkg:pypi/gguf@0.19.0%2B0123456789abcdef" in uris
    assert "pkg:pypi/llama-cpp-python@0.3.36" in uris
    assert {"name": "source", "digest": {"sha256": "c" * 64}, "uri": TOLD.origin} in build["resolvedDependencies"]
    run = document["predicate"]["runDetails"]
    assert run["builder"]["id"] == "urn:edgewright:controller:plant-7"
    assert run["metadata"]["startedOn"] == "2026-03-01T12:00:00Z"
    assert run["byproducts"] == [{"name": "report card", "digest": {"sha256": "e" * 64}}]


def test_a_statement_comes_back_as_it_was_told_and_has_one_spelling() -> None:
    merged = dataclasses.replace(TOLD, origin=f"{TOLD.origin} + adapter")
    assert (
        "uri" not in json.loads(provenance.statement(merged))["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    )
    plain = dataclasses.replace(TOLD, origin="", requantised=False, calibration="", card="", files=())
    for told in (TOLD, plain, merged):
        data = provenance.statement(told)
        assert provenance.parse(data, digest.of_bytes(data)) == told
        assert provenance.statement(provenance.parse(data)) == data


def test_a_statement_with_other_bytes_than_were_signed_is_refused() -> None:
    data = provenance.statement(TOLD)
    signed = digest.of_bytes(data)
    provenance.parse(data, signed)
    with pytest.raises(ProvenanceError, match="which is signed"):
        provenance.parse(data.replace(b"IQ2_M", b"IQ3_M"), signed)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("predicateType",), "https://slsa.dev/provenance/v0.2"),
        (("subject",), []),
        (("subject",), [{"digest": {"sha256": "../etc"}}]),
        (("predicate", "buildDefinition", "buildType"), "urn:other"),
        (("predicate", "runDetails", "metadata", "startedOn"), "yesterday"),
        (("predicate", "buildDefinition"), None),
    ],
)
def test_what_is_no_statement_of_ours_is_refused(where: tuple[str, ...], value: Any) -> None:
    document: dict[str, Any] = json.loads(provenance.statement(TOLD))
    provenance.parse(json.dumps(document).encode())
    place = document
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ProvenanceError):
        provenance.parse(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b"null", b" " * (5 << 20)])
def test_rubbish_is_refused_and_costs_nothing(data: bytes) -> None:
    with pytest.raises(ProvenanceError):
        provenance.parse(data)
