"""What may be removed from the controller's disk: a decision from values alone."""

from __future__ import annotations

from edgewright_controller.collection import UNCLAIMED_MS, Decision, Kind, Thing, decide, within

A, B, C = (letter * 64 for letter in "abc")
DAY = 86_400_000
NOW = 1_000 * DAY


def artifact(name: str, days: float, size: int = 100, what: str = "tiny for jetson") -> Thing:
    return Thing(Kind.ARTIFACT, name, size, int(NOW - days * DAY), what=what)


def document(name: str, *of: str, days: float = 9, pinned: bool = False) -> Thing:
    return Thing(Kind.DOCUMENT, name, 1, int(NOW - days * DAY), frozenset(of), pinned=pinned)


def differences(*of: str, size: int = 10) -> Thing:
    return Thing(Kind.DIFFERENCES, ".".join(of), size, NOW, frozenset(of))


def gone(decision: Decision) -> list[str]:
    return [one.thing.name for one in decision.going]


def test_what_is_needed_stays_with_all_that_belongs_to_it_and_the_rest_goes_with_all_of_its_own() -> None:
    things = [artifact(A, 30), artifact(B, 20), document("a1", A), document("b1", B), differences(A, B)]
    assert gone(decide(things, {A, B}, now_ms=NOW, least_age_ms=DAY)) == []

    decision = decide(things, {A}, now_ms=NOW, least_age_ms=DAY)
    assert gone(decision) == [B, "b1", f"{A}.{B}"]
    assert (decision.store_bytes, decision.left_bytes, decision.size) == (212, 101, 111)
    assert all(one.why for one in decision.going)


def test_the_longest_unused_goes_first_and_what_was_used_lately_stays() -> None:
    things = [artifact(A, 2), artifact(B, 30), artifact(C, 0.5), document("c1", C)]
    assert gone(decide(things, set(), now_ms=NOW, least_age_ms=DAY)) == [B, A]
    assert gone(decide(things, set(), now_ms=NOW, least_age_ms=0)) == [B, A, C, "c1"]


def test_records_stay_and_what_belongs_to_nothing_waits_for_who_may_claim_it() -> None:
    hour = UNCLAIMED_MS / DAY
    things = [document("card", pinned=True), document("lost"), document("young", days=0.5 * hour)]
    assert gone(decide(things, set(), now_ms=NOW, least_age_ms=0)) == ["lost"]

    unknown = [artifact(A, 0.5 * hour, what=""), artifact(B, 2 * hour, what="")]
    assert gone(decide(unknown, set(), now_ms=NOW, least_age_ms=0)) == [B]


def test_a_source_stays_while_anything_of_it_does_and_intermediates_go_when_unused() -> None:
    source = Thing(Kind.SOURCE, "s", 500, NOW - 9 * DAY, frozenset({A, B}))
    half = Thing(Kind.INTERMEDIATE, "f16", 300, NOW - 9 * DAY)
    fresh = Thing(Kind.INTERMEDIATE, "f32", 300, NOW)
    things = [artifact(A, 9), artifact(B, 9), source, half, fresh]
    assert gone(decide(things, {A}, now_ms=NOW, least_age_ms=DAY)) == [B, "f16"]
    assert gone(decide(things, set(), now_ms=NOW, least_age_ms=DAY)) == [A, B, "f16", "s"]


def test_a_quota_takes_no_more_than_it_must_and_never_what_is_needed() -> None:
    things = [artifact(A, 30), artifact(B, 20), artifact(C, 10), document("a1", A), differences(C, A)]
    assert gone(within(things, {C}, now_ms=NOW, quota_bytes=311)) == []
    assert gone(within(things, {C}, now_ms=NOW, quota_bytes=310)) == [A, "a1", f"{C}.{A}"]

    over = within(things, {C}, now_ms=NOW, quota_bytes=50)
    assert gone(over) == [A, B, "a1", f"{C}.{A}"]
    assert over.left_bytes == 100


def test_a_quota_is_about_the_store_alone() -> None:
    source = Thing(Kind.SOURCE, "s", 500, NOW - 9 * DAY)
    decision = within([artifact(A, 30), source], set(), now_ms=NOW, quota_bytes=200)
    assert (gone(decision), decision.store_bytes) == ([], 100)
