"""The director says to one device what it should have; a real client reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from edgewright_contract import release as contract
from edgewright_controller.director import Desired, Director, DirectorError
from tests.controller.signed_things import NOW, look_up, release, target

HAVE_A = Desired(4, release("a"), target("a"))


@pytest.fixture
def director(tmp_path: Path) -> Director:
    return Director.open(tmp_path / "director", tmp_path / "keys", "demo", NOW)


def test_a_real_client_reads_what_the_device_should_have(director: Director) -> None:
    signed = director.sign("jetson-01", HAVE_A, 7, NOW)
    found = look_up(director.first_root, director.files(signed, {}), target("a").path)
    assert found is not None
    assert (found.length, found.hashes) == (321, {"sha256": "a" * 64})
    assert found.custom["hw_class"] == "gguf-cpu"
    assert contract.from_json(found.custom["release"]) == release("a")
    said: Metadata[Targets] = Metadata.from_bytes(signed.targets)
    assert said.signed.unrecognized_fields == {"device_id": "jetson-01", "fleet": "demo", "generation": 4}
    assert signed.expires == (NOW + timedelta(days=3)).replace(microsecond=0)


def test_nothing_desired_is_an_empty_list(director: Director) -> None:
    signed = director.sign("jetson-01", Desired(5), 8, NOW)
    said: Metadata[Targets] = Metadata.from_bytes(signed.targets)
    assert said.signed.targets == {}
    assert look_up(director.first_root, director.files(signed, {}), target("a").path) is None


def test_a_device_gets_only_what_it_lacks(director: Director) -> None:
    signed = director.sign("jetson-01", HAVE_A, 7, NOW)
    names = [name for name, _ in director.files(signed, {})]
    assert names == ["timestamp.json", "7.snapshot.json", "7.targets.json"]
    whole = {"root": 1, "timestamp": 7, "snapshot": 7, "targets": 7}
    assert director.files(signed, whole) == []
    assert [name for name, _ in director.files(signed, {**whole, "targets": 0})] == ["7.targets.json"]


def test_it_is_signed_anew_when_its_inputs_change_or_half_its_life_is_gone(director: Director) -> None:
    signed = director.sign("jetson-01", HAVE_A, 7, NOW)
    assert director.needs_new(None, HAVE_A, NOW)
    assert not director.needs_new(signed, HAVE_A, NOW + timedelta(hours=35))
    assert director.needs_new(signed, HAVE_A, NOW + timedelta(hours=37))
    assert director.needs_new(signed, replace(HAVE_A, generation=5), NOW)
    assert director.needs_new(signed, replace(HAVE_A, release=release("a", prompt="Another question.")), NOW)
    assert director.needs_new(signed, Desired(4), NOW)


def test_the_director_stands_as_it_was_when_opened_again(tmp_path: Path, director: Director) -> None:
    again = Director.open(tmp_path / "director", tmp_path / "keys", "demo", NOW)
    signed = again.sign("jetson-01", HAVE_A, 7, NOW)
    assert look_up(director.first_root, again.files(signed, {}), target("a").path) is not None


def test_a_renewed_root_is_handed_out(director: Director) -> None:
    director.refresh(NOW + timedelta(days=183))
    signed = director.sign("jetson-01", HAVE_A, 7, NOW)
    assert director.files(signed, {"root": 1})[0][0] == "2.root.json"
    assert look_up(director.first_root, director.files(signed, {}), target("a").path) is not None


@pytest.mark.parametrize(
    ("device", "desired", "version"),
    [
        ("operator.admin", HAVE_A, 1),
        ("jetson-01", HAVE_A, 0),
        ("jetson-01", replace(HAVE_A, generation=-1), 1),
        ("jetson-01", Desired(1, release("a"), None), 1),
        ("jetson-01", Desired(1, None, target("a")), 1),
        ("jetson-01", Desired(1, release("a"), target("b")), 1),
        ("jetson-01", Desired(1, release("a"), target("a", hw_class="gguf-cuda")), 1),
        ("jetson-01", Desired(1, release("a"), replace(target("a"), kind="engine")), 1),
    ],
)
def test_what_contradicts_itself_is_not_signed(director: Director, device: str, desired: Desired, version: int) -> None:
    with pytest.raises(DirectorError):
        director.sign(device, desired, version, NOW)


def test_a_release_too_large_for_a_device_is_not_signed(director: Director) -> None:
    large = release("a")
    probes = tuple(replace(large.probes[0], name=f"p{n}", prompt="x" * 16_000) for n in range(20))
    with pytest.raises(DirectorError, match="shorten its probes"):
        director.sign("jetson-01", Desired(1, replace(large, probes=probes), target("a")), 1, NOW)
