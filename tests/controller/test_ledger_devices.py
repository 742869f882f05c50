"""Devices, releases, builds, requests and tokens, as rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.director import DirectorMetadata
from edgewright_controller.enrolment import EnrolmentRow
from edgewright_controller.ledger import (
    GenerationTaken,
    LedgerError,
    NotInLedger,
    artifacts,
    devices,
    releases,
    requests,
    rollouts,
)
from edgewright_controller.ledger.enrolments import LedgerEnrolments
from tests.controller.ledger_rows import artifact, fill, opened, release

DEVICE = "jetson-01"
DONE, FAILED = agent_pb2.OUTCOME_SUCCEEDED, agent_pb2.OUTCOME_FAILED


def status(sequence: int, **fields: object) -> agent_pb2.DeviceStatus:
    return agent_pb2.DeviceStatus(sequence=sequence, **fields)  # type: ignore[arg-type] # any of its fields


def test_generations_rise_by_one_and_the_history_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        for release_digest in (one, two, None, one):
            ledger.write_now(
                partial(devices.set_desired, device=DEVICE, release=release_digest, reason="why", now_ms=5)
            )
        history = ledger.read_now(lambda c: devices.history(c, DEVICE))
        assert [(row.generation, row.release) for row in history] == [(4, one), (3, None), (2, two), (1, one)]
        assert ledger.read_now(devices.desired) == {DEVICE: history[0]}
        assert ledger.read_now(lambda c: devices.desired(c, ["mac-01"])) == {}


def test_a_generation_that_was_set_already_is_taken(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: devices.set_desired(c, DEVICE, one, reason="", now_ms=1, generation=7))
        with pytest.raises(GenerationTaken, match="jetson-01: generation 7 was to be set, but generation 7 stands"):
            ledger.write_now(lambda c: devices.set_desired(c, DEVICE, two, reason="", now_ms=1, generation=7))
        assert ledger.read_now(devices.desired)[DEVICE].release == one
        assert ledger.write_now(lambda c: devices.set_desired(c, DEVICE, two, reason="", now_ms=1)).generation == 8


def test_old_news_of_a_device_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        assert ledger.write_now(lambda c: devices.report(c, DEVICE, status(5, reason="new"), 10))
        assert not ledger.write_now(lambda c: devices.report(c, DEVICE, status(5, reason="again"), 11))
        assert not ledger.write_now(lambda c: devices.report(c, DEVICE, status(4, reason="old"), 12))
        row = ledger.read_now(lambda c: devices.get(c, DEVICE))
        assert row.status is not None
        assert (row.status.reason, row.status_sequence, row.seen_ms) == ("new", 5, 10)


def test_a_device_that_enrols_anew_may_count_from_the_start_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        ledger.write_now(lambda c: devices.report(c, DEVICE, status(900), 10))
        assert not ledger.write_now(lambda c: devices.report(c, DEVICE, status(1), 11))
        ledger.write_now(lambda c: devices.enrol(c, DEVICE, "0b", 20))
        assert ledger.write_now(lambda c: devices.report(c, DEVICE, status(1), 21))
        assert ledger.read_now(lambda c: devices.get(c, DEVICE)).certificate_serial == "0b"


def test_devices_that_are_not_there_are_named(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        assert [row.id for row in ledger.read_now(devices.every)] == ["jetson-01", "mac-01"]
        assert [row.id for row in ledger.read_now(lambda c: devices.every(c, ["mac-01", "x"]))] == ["mac-01"]
        with pytest.raises(NotInLedger, match="no device 'x'"):
            ledger.read_now(lambda c: devices.get(c, "x"))
        with pytest.raises(NotInLedger, match="no device 'x'; enrol it again"):
            ledger.write_now(lambda c: devices.report(c, "x", status(1), 1))


def test_questions_may_name_more_devices_than_a_database_takes_parameters(tmp_path: Path) -> None:
    names = [f"dev-{number}" for number in range(40_000)]
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: devices.enrol(c, "dev-39999", "0a", 1))
        ledger.write_now(lambda c: devices.set_desired(c, "dev-39999", None, reason="", now_ms=1))
        assert [row.id for row in ledger.read_now(lambda c: devices.every(c, names))] == ["dev-39999"]
        assert list(ledger.read_now(lambda c: devices.desired(c, names))) == ["dev-39999"]
        assert ledger.read_now(lambda c: rollouts.live_of(c, names)) == {}


def test_what_worked_before_is_what_a_device_goes_back_to(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two, bad = ledger.write_now(lambda c: fill(c, "abc"))

        def given(digest: str, outcome: agent_pb2.Outcome, said: str | None = None) -> None:
            row = ledger.write_now(lambda c: devices.set_desired(c, DEVICE, digest, reason="", now_ms=1))
            told = status(row.generation, generation=row.generation, release=said or digest, outcome=outcome)
            ledger.write_now(lambda c: devices.report(c, DEVICE, told, 2))

        def before(leaving: str) -> str | None:
            return ledger.read_now(lambda c: devices.good_before(c, {DEVICE: leaving})).get(DEVICE)

        assert before(one) is None
        given(one, DONE)
        assert before(one) is None
        given(two, DONE)
        assert before(two) == one
        given(bad, FAILED)
        assert ledger.read_now(devices.last_good) == {DEVICE: two}
        assert before(bad) == two
        assert before(two) == one, "the bad one never served; what is left behind is the one before it"
        ledger.write_now(lambda c: releases.mark_rolled_back(c, one, "operator.admin", 9))
        assert before(two) is None
        given(bad, DONE, said="f" * 64)
        assert ledger.read_now(devices.last_good) == {DEVICE: two}, "it spoke of another release"


def test_inventory_and_presence_are_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        ledger.write_now(lambda c: devices.put_inventory(c, DEVICE, agent_pb2.Inventory(cores=6), "d" * 64))
        ledger.write_now(lambda c: devices.seen(c, {DEVICE: 50, "mac-01": 60}))
        ledger.write_now(lambda c: devices.seen(c, {DEVICE: 40}))
        row = ledger.read_now(lambda c: devices.get(c, DEVICE))
        assert row.inventory is not None
        assert (row.inventory.cores, row.inventory_digest, row.seen_ms) == (6, "d" * 64, 50)


def test_director_metadata_is_the_newest(tmp_path: Path) -> None:
    made = DirectorMetadata(b"t", b"s", b"g", 1, datetime(2030, 1, 1, tzinfo=timezone.utc), "inputs")
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        assert ledger.read_now(lambda c: devices.metadata(c, DEVICE)) is None
        for one in (made, replace(made, version=2, expires=made.expires + timedelta(days=1))):
            ledger.write_now(partial(devices.put_metadata, device=DEVICE, made=one))
            assert ledger.read_now(lambda c: devices.metadata(c, DEVICE)) == one


def test_a_release_comes_back_as_it_was_with_its_target(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        digest = ledger.write_now(fill)[0]
        row = ledger.read_now(lambda c: releases.get(c, digest))
        assert row.release == release("a")
        assert row.target.path == f"models/smollm2/gguf-cpu/{'a' * 64}.bundle"
        assert (row.target.bundle_length, row.target.block_index_length) == (300, 900)
        assert ledger.read_now(lambda c: releases.find(c, digest[:8])) == row
        assert len(ledger.read_now(releases.every)) == 2


def test_a_release_needs_its_artifact_and_an_epoch_only_rises(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        with pytest.raises(NotInLedger, match="there is no artifact aaaa"):
            ledger.write_now(lambda c: releases.put(c, release(), 0, 1))
        ledger.write_now(lambda c: artifacts.put(c, artifact()))
        for epoch, kept in ((3, 3), (1, 3), (4, 4)):
            digest = ledger.write_now(partial(releases.put, release=release(), epoch=epoch, now_ms=1))
            assert ledger.read_now(partial(releases.get, digest=digest)).target.release_epoch == kept


def test_looking_for_a_release_says_what_is_wrong(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: fill(c, "0123456789abcdef"))  # 16 digests and more share a first digit
        digests = [row.digest for row in ledger.read_now(releases.every)]
        shared = next(d[0] for d in digests if sum(other[0] == d[0] for other in digests) > 1)
        with pytest.raises(LedgerError, match="begins several"):
            ledger.read_now(lambda c: releases.find(c, shared))
        for nothing in ("zz", "%", "_"):
            with pytest.raises(NotInLedger, match="there is no release"):
                ledger.read_now(partial(releases.find, prefix=nothing))


def test_rolled_back_releases_can_be_allowed_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: releases.mark_rolled_back(c, one, "operator.admin", 1))
        ledger.write_now(lambda c: releases.mark_rolled_back(c, one, "operator.admin", 2))
        ledger.write_now(lambda c: releases.mark_rolled_back(c, two, "operator.admin", 3))
        ledger.write_now(lambda c: releases.unmark_rolled_back(c, two))
        assert ledger.read_now(releases.rolled_back) == {one}


def test_builds_are_found_by_key(tmp_path: Path) -> None:
    build = artifacts.BuildRow("k1", "a" * 64, 1 << 40, "gguf", 5)
    with opened(tmp_path) as ledger:
        with pytest.raises(LedgerError, match="FOREIGN KEY"):
            ledger.write_now(lambda c: artifacts.put_build(c, build))
        ledger.write_now(lambda c: artifacts.put(c, artifact()))
        ledger.write_now(lambda c: artifacts.put_build(c, build))
        assert ledger.read_now(lambda c: artifacts.builds(c, ["k1", "k2"])) == {"k1": build}
        assert ledger.read_now(artifacts.builds) == {"k1": build}
        assert ledger.read_now(lambda c: artifacts.get(c, "a" * 64)) == artifact()
        assert ledger.read_now(lambda c: artifacts.get(c, "f" * 64)) is None


def test_requests_are_open_until_their_own_device_answers(tmp_path: Path) -> None:
    logs = agent_pb2.DeviceRequest.KIND_SEND_LOGS
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        ledger.write_now(lambda c: requests.ask(c, "q1", DEVICE, logs, argument="100", now_ms=1))
        result = agent_pb2.RequestResult(id="q1", succeeded=True, detail="lines")
        assert [row.argument for row in ledger.read_now(lambda c: requests.open_of(c, DEVICE))] == ["100"]
        assert not ledger.write_now(lambda c: requests.answer(c, "mac-01", result, 2))
        assert ledger.write_now(lambda c: requests.answer(c, DEVICE, result, 2))
        assert not ledger.write_now(lambda c: requests.answer(c, DEVICE, result, 3))
        assert ledger.read_now(lambda c: requests.open_of(c, DEVICE)) == []


def _put(connection: Connection, row: EnrolmentRow) -> None:
    LedgerEnrolments(connection).put(row)


def test_enrolment_tokens_are_kept_and_replaced(tmp_path: Path) -> None:
    token = EnrolmentRow("5" * 64, DEVICE, 1000)
    used = replace(token, used_ms=5, key_sha256="6" * 64, chain_pem=b"chain")
    with opened(tmp_path) as ledger:
        assert ledger.read_now(lambda c: LedgerEnrolments(c).get("5" * 64)) is None
        for row in (token, used):
            ledger.write_now(partial(_put, row=row))
            assert ledger.read_now(lambda c: LedgerEnrolments(c).get("5" * 64)) == row
