"""What operators say to rollouts: what it does, what is entered of it, and what can be done when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import NotInLedger, audit, cordons, devices, releases
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.rollout import (
    Aborted,
    Approved,
    Command,
    DevicePhase,
    Paused,
    Resumed,
    Retried,
    RolloutError,
    RolloutPhase,
    Skipped,
)
from tests.controller.rollout_driver import policy
from tests.controller.runner_rig import NAMES, ROLLOUT, Rig, rig

TWO_MAY_FAIL = policy(max_failures=2)


async def failed_on_two(made: Rig) -> None:
    """A rollout that ended, in which one device succeeded, one failed and one fell silent."""
    await made.begin(waves=(NAMES,), policy=TWO_MAY_FAIL)
    await made.succeeds("dev-a")
    await made.fails("dev-b")
    await made.passes(110)
    await made.until_ended(RolloutPhase.SUCCEEDED)
    assert made.device("dev-c") is DevicePhase.TIMED_OUT


def entered(made: Rig, action: str) -> list[tuple[str, str, str]]:
    rows = made.ledger.read_now(lambda c: list(audit.entries(c)))
    return [(row.actor, row.subject, row.detail) for row in rows if row.action == action]


async def test_a_skipped_device_is_left_out_and_the_rollout_goes_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        answer = await made.runner.control(ROLLOUT, Skipped(frozenset({"dev-b"}), "alice: its fan is broken"))
        assert (answer.rollout, answer.phase, answer.devices) == (ROLLOUT, RolloutPhase.RUNNING, ("dev-b",))
        await made.succeeds("dev-a")
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        assert made.releases("dev-b") == []
        assert entered(made, "rollout.skip") == [("operator alice", ROLLOUT, "dev-b; why: its fan is broken")]


async def test_what_failed_in_a_rollout_that_has_ended_is_tried_again_in_a_new_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await failed_on_two(made)
        answer = await made.runner.control(ROLLOUT, Retried(None, "alice: rebooted"))
        assert (answer.rollout, answer.devices) == ("rollout-2", ("dev-b", "dev-c"))
        assert made.state("rollout-2").spec.policy == TWO_MAY_FAIL
        (lifted,) = made.requests("dev-b")
        assert (lifted.kind, lifted.argument) == (agent_pb2.DeviceRequest.KIND_RELEASE_HOLD, made.new)
        await made.succeeds("dev-b")
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED, "rollout-2")
        row = made.row("rollout-2")
        assert (row.created_by, row.about["what"], row.about["why"]) == (
            "alice", "retry of rollout-1, a test", "rebooted",
        )  # fmt: skip
        assert entered(made, "rollout.begin")[1] == (
            "operator alice", "rollout-2", "retry of rollout-1, a test: 2 devices; why: rebooted",
        )  # fmt: skip


async def test_a_retry_leaves_out_who_may_not_have_it_and_refuses_it_by_name(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await failed_on_two(made)
        made.ledger.write_now(lambda c: cordons.put(c, CordonRow("dev-b", "bob", 1, "its fan")))
        for device, expected in (
            ("dev-a", "dev-a: it succeeded in rollout-1; only one that failed, fell silent or was skipped can be"),
            ("dev-b", "dev-b: cordoned by bob: its fan; `edgewright devices uncordon dev-b` lets it have"),
            ("dev-x", "dev-x: rollout-1 has no such device; `edgewright rollout show rollout-1` lists them"),
        ):
            with pytest.raises(RolloutError, match=expected):
                await made.runner.control(ROLLOUT, Retried(frozenset({device, "dev-c"}), "alice"))
        answer = await made.runner.control(ROLLOUT, Retried(None, "alice"))
        assert answer.devices == ("dev-c",)
        with pytest.raises(RolloutError, match="dev-c: it is in rollout-2, which runs; `edgewright rollout watch"):
            await made.runner.control(ROLLOUT, Retried(frozenset({"dev-c"}), "alice"))
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED, "rollout-2")
        with pytest.raises(RolloutError, match=r"dev-c: it was given something else since; `edgewright apply` gives"):
            await made.runner.control(ROLLOUT, Retried(frozenset({"dev-c"}), "alice"))


@pytest.mark.parametrize("what", ["rolled back", "given something else", "revoked"])
async def test_a_retry_gives_nobody_what_was_taken_back_since(tmp_path: Path, what: str) -> None:
    async with rig(tmp_path) as made:
        await failed_on_two(made)
        if what == "rolled back":
            made.ledger.write_now(lambda c: releases.mark_rolled_back(c, made.new, "bob", 1))
        elif what == "revoked":
            made.shut = frozenset({"dev-b", "dev-c"})
        else:
            for device in ("dev-b", "dev-c"):
                made.ledger.write_now(
                    lambda c, d=device: devices.set_desired(c, d, made.old, reason="a mandate", now_ms=1)  # type: ignore[misc]  # mypy cannot type a lambda's default
                )
        with pytest.raises(RolloutError, match=f"dev-b: .*{what}.*\ndev-c: .*{what}"):
            await made.runner.control(ROLLOUT, Retried(None, "alice"))


async def test_a_device_that_failed_and_was_cordoned_is_not_offered_it_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(waves=(NAMES,), policy=TWO_MAY_FAIL)
        await made.fails("dev-a")
        await made.fails("dev-b")
        made.ledger.write_now(lambda c: cordons.put(c, CordonRow("dev-b", "bob", 1, "")))
        with pytest.raises(RolloutError, match="dev-b: cordoned by bob; `edgewright devices uncordon dev-b`"):
            await made.runner.control(ROLLOUT, Retried(frozenset({"dev-a", "dev-b"}), "alice"))
        assert (await made.runner.control(ROLLOUT, Retried(None, "alice"))).devices == ("dev-a",)
        with pytest.raises(RolloutError, match="dev-b: cordoned by bob"):
            await made.runner.control(ROLLOUT, Retried(None, "alice"))
        assert [made.releases(name) for name in NAMES] == [["new", "new"], ["new"], ["new"]]


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        (Paused("bob"), "`edgewright rollout retry rollout-1` begins a new one with the devices that failed"),
        (Resumed("bob"), "`edgewright rollout retry rollout-1` begins a new one"),
        (Approved("bob"), "`edgewright rollout retry rollout-1` begins a new one"),
        (Skipped(frozenset({"dev-b"}), "bob"), "`edgewright rollout retry rollout-1` begins a new one"),
        (Aborted(by="bob"), "`edgewright rollback` takes back what it gave"),
    ],
)
async def test_what_has_ended_is_told_so_and_what_can_be_done_instead(
    tmp_path: Path, command: Command, cure: str
) -> None:
    async with rig(tmp_path) as made:
        await failed_on_two(made)
        with pytest.raises(RolloutError, match=r"^rollout rollout-1 has ended already; it succeeded: .*; ") as refusal:
            await made.runner.control(ROLLOUT, command)
        assert cure in str(refusal.value)


async def test_a_rollout_that_is_not_there_or_had_no_failure_is_not_retried(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        with pytest.raises(NotInLedger, match="no rollout 'rollout-9'; `edgewright rollout list`"):
            await made.runner.control("rollout-9", Retried(None, "alice"))
        await made.begin(["dev-a"])
        await made.succeeds("dev-a")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        with pytest.raises(RolloutError, match=r"has ended \(succeeded\), and no device failed in it"):
            await made.runner.control(ROLLOUT, Retried(None, "alice"))


async def test_what_is_ending_is_retried_once_it_has_ended(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(waves=(NAMES,), policy=TWO_MAY_FAIL)
        await made.fails("dev-a")
        await made.runner.control(ROLLOUT, Aborted(by="bob"))
        expected = r"ending already \(aborted: aborted by bob\); retry once it has ended, which begins a new rollout"
        with pytest.raises(RolloutError, match=expected):
            await made.runner.control(ROLLOUT, Retried(None, "alice"))
