"""The gate judges counts; each verdict says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_controller.gates import Activations, GatePolicy, HealthPolicy, Ruling, Samples, judge

COUNTS = st.integers(0, 50)


def test_all_well_is_promoted() -> None:
    verdict = judge(Samples(Activations(succeeded=3)), GatePolicy(), now=0)
    assert verdict.ruling is Ruling.PROMOTE
    assert verdict.reasons == (
        "3 of 3 devices succeeded",
        "health does not say: 0 requests can be compared, it takes 100",
    )
    assert judge(Samples(Activations(succeeded=3)), GatePolicy(health=HealthPolicy(on=False)), now=0).reasons == (
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
