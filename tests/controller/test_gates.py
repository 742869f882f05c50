"""The gate judges counts; each verdict says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_controller.gates import (
    Activations,
    Comparison,
    GatePolicy,
    HealthPolicy,
    HealthSamples,
    Ruling,
    Samples,
    judge,
)
from edgewright_controller.gates.health import ENOUGH

COUNTS = st.integers(0, 50)


def test_all_well_is_promoted() -> None:
    verdict = judge(Samples(Activations(succeeded=3)), GatePolicy(), now=0)
    assert verdict.ruling is Ruling.PROMOTE
    assert verdict.reasons == ("3 of 3 devices succeeded",)


def test_health_that_was_looked_for_and_has_too_little_to_say_says_so() -> None:
    few = Samples(Activations(succeeded=3), HealthSamples(requests=40, probed=3))
    assert judge(few, GatePolicy(soak_s=60), now=60).reasons == (
        "3 of 3 devices succeeded",
        "health does not say: 40 requests can be compared, it takes 100",
        "3 devices answered the probes again",
    )
    assert judge(few, GatePolicy(soak_s=60, health=HealthPolicy(on=False)), now=60).reasons == (
        "3 of 3 devices succeeded",
    )


def test_one_failure_too_many_reverts_while_others_are_under_way() -> None:
    assert (
        judge(Samples(Activations(succeeded=2, failed=1, under_way=1)), GatePolicy(max_failures=1), 0).ruling
        is Ruling.WAIT
    )
    verdict = judge(Samples(Activations(succeeded=2, failed=1, silent=1, under_way=1)), GatePolicy(max_failures=1), 0)
    assert verdict.ruling is Ruling.REVERT
    assert verdict.reasons == ("1 of 5 devices failed", "1 of 5 devices fell silent", "at most 1 may")


def test_a_limit_in_percent_and_one_in_devices_must_both_be_passed() -> None:
    policy = GatePolicy(max_failures=1, max_failed_percent=10)
    assert judge(Samples(Activations(succeeded=9, failed=1)), policy, 0).ruling is Ruling.PROMOTE
    assert judge(Samples(Activations(succeeded=18, failed=2)), policy, 0).ruling is Ruling.PROMOTE, "just 10%"
    assert judge(Samples(Activations(failed=1, under_way=1)), policy, 0).ruling is Ruling.WAIT, "50%, but one"
    verdict = judge(Samples(Activations(succeeded=17, failed=2)), policy, 0)
    assert verdict.ruling is Ruling.REVERT
    assert verdict.reasons == ("2 of 19 devices failed", "at most 1 may, or 10%")


def test_there_is_no_verdict_from_nothing() -> None:
    assert judge(Samples(Activations()), GatePolicy(max_failures=9), now=1e9).ruling is Ruling.WAIT
    assert judge(Samples(Activations(under_way=3)), GatePolicy(), now=1e9).ruling is Ruling.WAIT


def test_what_succeeded_nowhere_is_not_promoted_whatever_the_limit() -> None:
    assert judge(Samples(Activations(succeeded=1, failed=2)), GatePolicy(max_failures=5), 0).ruling is Ruling.PROMOTE
    verdict = judge(Samples(Activations(failed=2)), GatePolicy(max_failures=5), 0)
    assert (verdict.ruling, verdict.reasons) == (Ruling.REVERT, ("2 of 2 devices failed", "none succeeded"))


def test_soak_time_is_counted_from_the_last_that_ended() -> None:
    samples, policy = Samples(Activations(succeeded=1, last_at=100.0)), GatePolicy(soak_s=60)
    waiting = judge(samples, policy, now=130.0)
    assert (waiting.ruling, waiting.reasons) == (Ruling.WAIT, ("being watched for 30 s more",))
    assert judge(samples, policy, now=160.0).ruling is Ruling.PROMOTE


@pytest.mark.parametrize(
    "bad",
    [
        {"max_failures": -1},
        {"soak_s": -1.0},
        {"soak_s": float("inf")},
        {"soak_s": float("nan")},
        {"max_failed_percent": 100.0},
        {"max_failed_percent": -1.0},
        {"max_failed_percent": float("nan")},
    ],
)
def test_limits_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"may be negative|from 0 to below 100"):
        GatePolicy(**bad)  # type: ignore[arg-type] # a table of mixed fields


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 20))
def test_more_failures_never_turn_a_stop_into_a_go(
    good: int, failed: int, silent: int, under_way: int, limit: int
) -> None:
    policy = GatePolicy(max_failures=limit)
    verdict = judge(Samples(Activations(good, failed, silent, under_way)), policy, 0.0)
    worse = judge(Samples(Activations(good, failed + 1, silent, under_way)), policy, 0.0)
    assert verdict.reasons
    if verdict.ruling is Ruling.REVERT:
        assert worse.ruling is Ruling.REVERT
    if verdict.ruling is Ruling.PROMOTE:
        assert failed + silent <= limit
        assert good > 0


def healthy(errors: float, *, requests: int = 500) -> HealthSamples:
    """Twenty devices whose errors have this weight."""
    return HealthSamples(Comparison(errors, 20, before=0.02, after=0.045), requests=requests)


def test_health_stops_a_release_at_any_time_also_while_devices_are_under_way() -> None:
    verdict = judge(Samples(Activations(succeeded=1, under_way=9), healthy(ENOUGH)), GatePolicy(soak_s=60), 0)
    assert (verdict.ruling, verdict.reasons) == (
        Ruling.REVERT,
        ("4.50% of requests failed on 20 devices, 2.00% before",),
    )
    off = GatePolicy(health=HealthPolicy(on=False))
    assert judge(Samples(Activations(succeeded=1), healthy(ENOUGH)), off, 0).ruling is Ruling.PROMOTE


def test_health_that_is_worse_but_proves_nothing_is_watched_longer_and_not_for_ever() -> None:
    policy, done = GatePolicy(soak_s=60), Activations(succeeded=20)
    unclear = judge(Samples(done, healthy(0.5)), policy, 60)
    assert unclear.ruling is Ruling.WAIT
    assert unclear.reasons[-1] == "no proof yet: being watched for 120 s more at most"
    assert judge(Samples(done, healthy(-0.5)), policy, 60).ruling is Ruling.PROMOTE
    assert judge(Samples(done, healthy(0.5)), policy, 180).ruling is Ruling.PROMOTE


@given(st.tuples(COUNTS, COUNTS, COUNTS), st.integers(0, 10**6), st.floats(-20, 20) | st.none(), COUNTS)
def test_waiting_ends(ended: tuple[int, int, int], soak_s: int, weight: float | None, limit: int) -> None:
    good, failed, silent = ended
    health = HealthSamples() if weight is None else healthy(weight)
    samples = Samples(Activations(good, failed, silent, last_at=7.0), health)
    verdict = judge(samples, GatePolicy(limit, soak_s), 7.0 + 3 * soak_s)
    assert (verdict.ruling is Ruling.WAIT) == (good + failed + silent == 0 and not (weight or 0) >= ENOUGH)


@pytest.mark.parametrize("bad", [{"ratio": 1.0}, {"ratio": float("inf")}, {"ratio": float("nan")}, {"min_requests": 0}])
def test_a_regression_that_is_none_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 1, and at least 1"):
        HealthPolicy(**bad)  # type: ignore[arg-type] # a table of mixed fields
