"""The decisions by themselves, without signatures or files."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent import trust
from edgewright_agent.trust import (
    Assignment,
    Marks,
    Reason,
    Repository,
    RoleMark,
    SignedTarget,
    Statement,
    TrustRefused,
)
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
FRESH = Marks(trusted_time=NOW)
TARGET = ImageTarget("model", "smollm2", "gguf-cpu", "gguf", "a" * 64, 321, "b" * 64, 77, 1)
RELEASE = Release("smollm2", "jetson", "gguf", "a" * 64, "cpu", 1 << 30)
IMAGE = SignedTarget(TARGET.path, 321, {"sha256": "a" * 64}, TARGET.custom)
DIRECTED = replace(IMAGE, custom={"hw_class": "gguf-cpu", "release": RELEASE.to_json()})
STATEMENT = Statement("jetson-01", "demo", 3, (DIRECTED,))


def _decide(
    image: SignedTarget | None = IMAGE, director: Statement = STATEMENT, marks: Marks = FRESH, **others: Any
) -> Assignment:
    asked = {"device": "jetson-01", "fleet": "demo", "accepted_hw_classes": None, "holds": ()}
    return trust.decide(image, director, marks=marks, **{**asked, **others})


def _reason(**changes: Any) -> Reason:
    with pytest.raises(TrustRefused) as refused:
        _decide(**changes)
    return refused.value.reason


def test_both_repositories_agreeing_make_an_assignment() -> None:
    assert _decide() == Assignment(3, RELEASE, TARGET)


def test_an_empty_list_assigns_nothing() -> None:
    assert _decide(None, replace(STATEMENT, targets=())) == Assignment(3)


def test_engines_and_agents_beside_the_model_are_left_alone() -> None:
    engine = replace(DIRECTED, path="engines/xllamacpp/gguf-cpu/" + "e" * 64 + ".bundle")
    both = replace(STATEMENT, targets=(engine, DIRECTED))
    assert trust.wanted(both) == DIRECTED
    assert _decide(director=both).target == TARGET


def test_two_models_are_refused() -> None:
    assert _reason(director=replace(STATEMENT, targets=(DIRECTED, DIRECTED))) is Reason.MALFORMED


@pytest.mark.parametrize("generation", [None, "3", 3.0, True, -1, [3]])
def test_a_generation_that_is_no_whole_number_is_refused(generation: Any) -> None:
    assert _reason(director=replace(STATEMENT, generation=generation)) is Reason.MALFORMED


@pytest.mark.parametrize("device", [None, "", "mac-01", "JETSON-01", ["jetson-01"]])
def test_a_statement_for_anyone_else_is_refused(device: Any) -> None:
    assert _reason(director=replace(STATEMENT, device=device)) is Reason.OTHER_DEVICE


@pytest.mark.parametrize("fleet", [None, "other"])
def test_a_statement_of_another_fleet_is_refused(fleet: Any) -> None:
    assert _reason(director=replace(STATEMENT, fleet=fleet)) is Reason.OTHER_FLEET


@pytest.mark.parametrize("custom", [None, [], "x", {}, {"hw_class": "gguf-cpu"}, {"release": RELEASE.to_json()}])
def test_custom_data_of_another_form_is_refused(custom: Any) -> None:
    assert _reason(director=replace(STATEMENT, targets=(replace(DIRECTED, custom=custom),))) is Reason.MALFORMED
    assert _reason(image=replace(IMAGE, custom=custom)) is Reason.MALFORMED


def test_an_engine_dressed_as_a_model_is_refused() -> None:
    assert _reason(image=replace(IMAGE, custom={**TARGET.custom, "kind": "engine"})) is Reason.MALFORMED


def _roles(**versions: int) -> dict[tuple[Repository, str], RoleMark]:
    return {(Repository.IMAGE, role): RoleMark(version, "k1") for role, version in versions.items()}


def test_a_role_version_never_falls_under_the_same_keys() -> None:
    marks = trust.advance(FRESH, _roles(timestamp=5), Assignment(1), NOW)
    assert trust.advance(marks, _roles(timestamp=5), Assignment(1), NOW) == marks
    with pytest.raises(TrustRefused, match="image timestamp version 4 after 5") as refused:
        trust.advance(marks, _roles(timestamp=4), Assignment(1), NOW)
    assert refused.value.reason is Reason.ROLLBACK


def test_other_keys_start_a_role_anew_but_never_a_root() -> None:
    marks = trust.advance(FRESH, _roles(timestamp=5, root=2), Assignment(1), NOW)
    anew = {(Repository.IMAGE, "timestamp"): RoleMark(1, "k2")}
    assert trust.advance(marks, anew, Assignment(1), NOW).roles[Repository.IMAGE, "timestamp"].version == 1
    with pytest.raises(TrustRefused, match="image root version 1 after 2"):
        trust.advance(marks, {(Repository.IMAGE, "root"): RoleMark(1, "k2")}, Assignment(1), NOW)


def test_the_trusted_time_rises_and_bounds_the_clock() -> None:
    later = trust.advance(FRESH, {}, Assignment(1), NOW + timedelta(hours=5))
    assert later.trusted_time == NOW + timedelta(hours=5)
    assert trust.advance(later, {}, Assignment(1), NOW).trusted_time == later.trusted_time
    assert trust.reference_time(later, NOW - timedelta(days=9)) == later.trusted_time
    assert trust.reference_time(later, NOW + timedelta(days=9)) == NOW + timedelta(days=9)


_STATEMENTS = st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", None]), st.integers(0, 6))


@given(st.lists(_STATEMENTS, max_size=30))
def test_whatever_comes_marks_only_rise_and_a_generation_says_one_thing(
    statements: list[tuple[int, str | None, int]],
) -> None:
    marks, said = FRESH, dict[int, str]()
    for generation, mark, version in statements:
        image = directed = None
        if mark is not None:
            target = replace(TARGET, bundle=mark * 64)
            image = replace(IMAGE, path=target.path, hashes={"sha256": target.bundle}, custom=target.custom)
            release = replace(RELEASE, artifact=target.bundle)
            directed = replace(image, custom={"hw_class": "gguf-cpu", "release": release.to_json()})
        statement = replace(STATEMENT, generation=generation, targets=(directed,) if directed else ())
        try:
            found = _decide(image, statement, marks)
            after = trust.advance(marks, _roles(timestamp=version), found, NOW)
        except TrustRefused:
            continue
        assert after.generation >= marks.generation
        assert version >= marks.roles.get((Repository.IMAGE, "timestamp"), RoleMark(0, "k1")).version
        assert said.setdefault(generation, found.said) == found.said
        marks = after


@given(st.lists(st.integers(0, 9), max_size=20))
def test_activated_epochs_only_rise(epochs: list[int]) -> None:
    marks = FRESH
    for epoch in epochs:
        marks = trust.activated(marks, replace(TARGET, release_epoch=epoch))
    assert marks.epochs.get("smollm2", 0) == max(epochs, default=0)
    other = replace(TARGET, name="qwen", release_epoch=0)
    assert trust.activated(marks, other).epochs["qwen"] == 0
