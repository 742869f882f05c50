"""Releases and targets: one digest for one meaning, and strict about what a stranger signed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgewright_contract import release, targets
from edgewright_contract.release import Probe, Release, ReleaseError
from edgewright_contract.targets import ImageTarget, TargetError

RELEASE = Release(
    model="smollm2",
    profile="jetson",
    runtime="gguf",
    artifact="a" * 64,
    accelerator="cuda",
    memory_bytes=1 << 30,
    options={"context": 2048, "flash_attention": True},
    probes=(Probe("capital", "What is the capital of France?", expect="Paris"),),
)
TARGET = ImageTarget("model", "smollm2", "gguf-cuda", "gguf", "a" * 64, 120, "b" * 64, 4000)


def test_a_release_survives_its_document() -> None:
    again = release.from_json(RELEASE.to_json())
    assert again == RELEASE
    assert again.digest == RELEASE.digest
    assert RELEASE.hw_class == "gguf-cuda"


def test_every_part_of_a_release_is_in_its_digest() -> None:
    others = [
        replace(RELEASE, model="other"),
        replace(RELEASE, profile="other"),
        replace(RELEASE, artifact="c" * 64),
        replace(RELEASE, accelerator="cpu"),
        replace(RELEASE, options={"context": 1024, "flash_attention": True}),
        replace(RELEASE, probes=()),
        replace(RELEASE, engine="d" * 64),
        replace(RELEASE, memory_bytes=1),
    ]
    assert len({r.digest for r in [RELEASE, *others]}) == len(others) + 1


def test_a_release_is_served_under_its_models_id_or_under_the_name_that_it_gives() -> None:
    assert RELEASE.served_name == RELEASE.model
    named = release.from_json(replace(RELEASE, options={"served_name": "org/assistant:1b"}).to_json())
    assert named.served_name == "org/assistant:1b"


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": "pickle"},
        {"artifact": "../../x"},
        {"model": "../../x"},
        {"memory_bytes": "1"},
        {"memory_bytes": -1},
        {"memory_bytes": True},
        {"options": {"context": 1.5}},
        {"options": {"nested": {}}},
        {"options": []},
        {"options": {"served_name": ""}},
        {"options": {"served_name": 7}},
        {"options": {"served_name": "a\n"}},
        {"probes": [{"name": "p", "prompt": ""}]},
        {"probes": [{"name": "p", "prompt": "x", "expect": "a", "expect_regex": "b"}]},
        {"probes": [{"name": "p", "prompt": "x", "expect_regex": "("}]},
        {"probes": [{"name": "p", "prompt": "x", "timeout_s": 0}]},
        {"probes": [{"name": "p", "prompt": "x", "surprise": 1}]},
        {"probes": [{"name": "p", "prompt": "x"}] * 33},
        {"probes": [[]]},
        {"probes": [{"name": "p", "prompt": "x", "expect_regex": "a{99999999999999999999}"}]},
        {"probes": [{"name": "p", "prompt": "\ud800"}]},
        {"engine": "latest"},
        {"edgewright_release": 2},
        {"surprise": 1},
    ],
)
def test_a_document_that_is_not_a_release_is_refused(change: dict[str, Any]) -> None:
    document = RELEASE.to_json()
    assert release.from_json(document)
    with pytest.raises(ReleaseError):
        release.from_json(document | change)


@pytest.mark.parametrize("document", [None, 1, [], {}, {"edgewright_release": 1}])
def test_rubbish_is_not_a_release(document: Any) -> None:
    with pytest.raises(ReleaseError):
        release.from_json(document)


def test_a_target_survives_its_metadata() -> None:
    parsed = targets.parse(TARGET.path, 120, {"sha256": "a" * 64}, TARGET.custom)
    assert parsed == TARGET


def test_unknown_custom_keys_are_left_alone() -> None:
    custom = TARGET.custom | {"of_a_newer_controller": "c" * 64}
    assert targets.parse(TARGET.path, 120, {"sha256": "a" * 64}, custom) == TARGET


def test_a_target_may_name_the_statement_of_how_it_was_made() -> None:
    assert "provenance" not in TARGET.custom, "so that what an older controller signed stays as it is"
    made = replace(TARGET, provenance="c" * 64)
    assert made.custom == TARGET.custom | {"provenance": "c" * 64}
    assert targets.parse(made.path, 120, {"sha256": "a" * 64}, made.custom) == made


@pytest.mark.parametrize(
    ("path", "hashes", "custom"),
    [
        ("models/smollm2/gguf-cuda/" + "b" * 64 + ".bundle", {}, {}),
        ("models/other/../gguf-cuda/" + "a" * 64 + ".bundle", {}, {}),
        ("engines/smollm2/gguf-cuda/" + "a" * 64 + ".bundle", {}, {}),
        ("models/smollm2/gguf-cpu/" + "a" * 64 + ".bundle", {}, {}),
        (TARGET.path, {"sha256": "b" * 64}, {}),
        (TARGET.path, {"sha256": "zz"}, {}),
        (TARGET.path, {}, {"kind": "agent"}),
        (TARGET.path, {}, {"hw_class": "gguf-cpu"}),
        (TARGET.path, {}, {"block_index": {"sha256": "b" * 64}}),
        (TARGET.path, {}, {"block_index": {"sha256": "b" * 64, "length": -1}}),
        (TARGET.path, {}, {"block_index": {"sha256": "b" * 64, "length": 1 << 40}}),
        (TARGET.path, {}, {"release_epoch": "0"}),
        (TARGET.path, {}, {"provenance": "zz"}),
        (TARGET.path, {}, {"provenance": {"sha256": "b" * 64}}),
        (TARGET.path, {}, {"provenance": None}),
    ],
)
def test_contradicting_target_information_is_refused(path: str, hashes: dict[str, str], custom: dict[str, Any]) -> None:
    assert targets.parse(TARGET.path, 120, {"sha256": "a" * 64}, TARGET.custom)
    with pytest.raises(TargetError):
        targets.parse(path, 120, {"sha256": "a" * 64} | hashes, TARGET.custom | custom)


def test_a_bundle_that_no_device_would_hold_in_memory_is_refused() -> None:
    with pytest.raises(TargetError, match="a bundle of 1,099,511,627,776 bytes"):
        targets.parse(TARGET.path, 1 << 40, {"sha256": "a" * 64}, TARGET.custom)


def test_a_release_may_name_its_chat_template_and_keeps_its_digest_when_it_does_not() -> None:
    assert RELEASE.chat_template == ""
    # As it was before there was such an option: these digests are what devices hold.
    assert RELEASE.digest == "aae4e80f8bf1ad8f64c901b82cd25089a6fdea69f73d4c1a8979bd3ac8f7ddbf"
    pinned = replace(RELEASE, options={**RELEASE.options, "chat_template": "c" * 64})
    again = release.from_json(pinned.to_json())
    assert (again, again.chat_template) == (pinned, "c" * 64)
    assert pinned.digest != RELEASE.digest
    for wrong in ("", "C" * 64, "c" * 63, 7, True):
        with pytest.raises(ReleaseError, match=r"options\.chat_template"):
            release.from_json(replace(RELEASE, options={"chat_template": wrong}).to_json())
