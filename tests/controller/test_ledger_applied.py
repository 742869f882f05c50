"""Which manifest was applied last, what was rolled back where, and which epochs devices have had."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import applied, artifacts, audit, devices, epochs, releases, rolled_back_on
from tests.controller.ledger_rows import artifact, fill, opened, release

ONE, TWO = "jetson-01", "mac-01"


def apply(connection: Connection, text: str, reason: str = "") -> applied.AppliedRow:
    return applied.put(connection, by="alice", file="fleet.toml", folder="/srv", text=text, reason=reason, now_ms=7)


def test_the_manifest_that_was_applied_last_is_known_with_who_and_why(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert ledger.read_now(applied.last) is None
        ledger.write_now(partial(apply, text="one"))
        ledger.write_now(partial(apply, text="two", reason="smaller context"))
    with opened(tmp_path) as ledger:
        last = applied.AppliedRow(2, 7, "alice", "fleet.toml", "/srv", "two", "smaller context")
        assert ledger.read_now(applied.last) == last


def test_manifests_of_long_ago_are_forgotten_and_numbers_go_on(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        for number in range(applied.KEPT + 3):
            ledger.write_now(partial(apply, text=str(number)))
        count = ledger.read_now(lambda c: c.exec_driver_sql("SELECT count(*), min(number) FROM applied").one())
        assert tuple(count) == (applied.KEPT, 4)


def test_what_one_device_was_rolled_back_from_is_refused_there_only(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        wanted = {ONE: one, TWO: one, "other": None}
        assert ledger.read_now(lambda c: rolled_back_on.refused(c, wanted)) == {}
        ledger.write_now(lambda c: rolled_back_on.mark(c, ONE, one, "alice", 1))
        ledger.write_now(lambda c: rolled_back_on.mark(c, ONE, one, "bob", 2))
        assert ledger.read_now(lambda c: rolled_back_on.refused(c, wanted)) == {ONE: one}
        assert ledger.read_now(lambda c: rolled_back_on.refused(c, {ONE: two})) == {}
        assert ledger.read_now(lambda c: rolled_back_on.releases_of(c, [TWO])) == {}
        ledger.write_now(lambda c: releases.mark_rolled_back(c, one, "alice", 3))
        assert ledger.read_now(lambda c: rolled_back_on.refused(c, wanted)) == {ONE: one, TWO: one}
        ledger.write_now(lambda c: releases.unmark_rolled_back(c, one))
        ledger.write_now(lambda c: rolled_back_on.unmark(c, ONE, one))
        assert ledger.read_now(rolled_back_on.releases_of) == {}


def test_a_device_does_not_go_back_to_what_it_was_rolled_back_from(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        for digest in (one, two):
            ledger.write_now(partial(had, device=ONE, digest=digest))
        assert ledger.read_now(lambda c: devices.good_before(c, {ONE: two})) == {ONE: one}
        ledger.write_now(lambda c: rolled_back_on.mark(c, ONE, one, "alice", 1))
        assert ledger.read_now(lambda c: devices.good_before(c, {ONE: two})) == {}


def test_another_machine_under_the_same_name_may_have_what_the_old_one_could_not(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, _ = ledger.write_now(fill)
        ledger.write_now(lambda c: rolled_back_on.mark(c, ONE, one, "alice", 1))
        ledger.write_now(lambda c: devices.enrol(c, ONE, "0b", 2))
        assert ledger.read_now(rolled_back_on.releases_of) == {ONE: frozenset({one})}
        ledger.write_now(lambda c: devices.enrol(c, ONE, "0c", 3, another_machine=True))
        assert ledger.read_now(rolled_back_on.releases_of) == {}


def had(connection: Connection, device: str, digest: str, outcome: agent_pb2.Outcome | None = None) -> None:
    """The device was given this, and says how it went: well, unless told otherwise."""
    row = devices.set_desired(connection, device, digest, reason="", now_ms=1)
    said = agent_pb2.DeviceStatus(
        sequence=row.generation,
        generation=row.generation,
        release=digest,
        outcome=agent_pb2.OUTCOME_SUCCEEDED if outcome is None else outcome,
    )
    devices.report(connection, device, said, 2)


def test_the_highest_epoch_that_a_device_and_its_model_have_had_is_known(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, _ = ledger.write_now(fill)
        ledger.write_now(lambda c: artifacts.put(c, artifact("c")))
        higher = ledger.write_now(lambda c: releases.put(c, release("c"), 3, 2))
        ledger.write_now(partial(had, device=ONE, digest=one))
        ledger.write_now(partial(had, device=ONE, digest=higher, outcome=agent_pb2.OUTCOME_FAILED))
        known = ledger.read_now(epochs.activated)
        assert (known.on(ONE, "smollm2"), known.of_model("smollm2")) == (0, 0), "it never took traffic"
        ledger.write_now(partial(had, device=TWO, digest=higher))
        known = ledger.read_now(epochs.activated)
        assert (known.on(ONE, "smollm2"), known.on(TWO, "smollm2"), known.of_model("smollm2")) == (0, 3, 3)
        assert known.of_model("another") == 0


def test_the_recipe_of_an_artifact_is_known_when_its_build_told_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: artifacts.put(c, artifact()))
        ledger.write_now(lambda c: artifacts.put_build(c, artifacts.BuildRow("old", "a" * 64, 1, "gguf", 9)))
        assert ledger.read_now(lambda c: artifacts.recipe(c, "a" * 64)) is None
        ledger.write_now(lambda c: artifacts.put_build(c, artifacts.BuildRow("k", "a" * 64, 1, "gguf", 5, '{"x":1}')))
        assert ledger.read_now(lambda c: artifacts.recipe(c, "a" * 64)) == '{"x":1}'


def test_a_reason_is_found_again_in_a_detail_however_long_that_is() -> None:
    assert audit.parted(audit.with_reason("fleet.toml", "")) == ("fleet.toml", "")
    assert audit.parted(audit.with_reason("fleet.toml", "too slow; why: heat")) == ("fleet.toml", "too slow; why: heat")
    long = audit.with_reason("x" * 5_000, "y" * 500)
    assert (len(long), audit.parted(long)[1]) == (audit.MAX_DETAIL_CHARACTERS, "y" * 500)
