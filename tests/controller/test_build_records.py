"""What became of builds: kept, estimated from, told, trimmed; no log shows what looks like a credential."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgewright_controller.compile import build_estimate
from edgewright_controller.compile.build_estimate import PastBuild, seconds_left
from edgewright_controller.compile.build_records import (
    BUILT,
    FAILED,
    MAX_TAIL_BYTES,
    STOPPED,
    BuildRecord,
    BuildRecords,
    StageClock,
)
from edgewright_controller.compile.redaction import redacted
from edgewright_controller.service.builds import Builds
from edgewright_controller.service.change import BadInput


def _record(letter: str, began_ms: int = 1000) -> BuildRecord:
    return BuildRecord(letter * 64, "smollm2", "gguf", "Q4_K_M", "gguf Q4_K_M", 10**8, began_ms)


def _ended(records: BuildRecords, letter: str, began_ms: int = 1000, log: bytes = b"one\ntwo\n") -> None:
    record = _record(letter, began_ms)
    records.begin(record)
    records.end(record.key, state=BUILT, ended_ms=began_ms + 5, artifact="e" * 64, stages=(("gguf_convert", 4.0),))
    (records._folder / f"{record.key}.log").write_bytes(log)


def test_what_was_built_is_told_after_a_restart_and_what_ran_is_told_as_stopped(tmp_path: Path) -> None:
    records = BuildRecords(tmp_path)
    _ended(records, "a", began_ms=1)
    records.begin(_record("b", began_ms=2))
    (tmp_path / "hashes.json").write_text("{}")
    (tmp_path / f"{'c' * 64}.json").write_text("broken")
    again = BuildRecords(tmp_path).newest_first()
    assert [(record.key[0], record.state) for record in again] == [("b", STOPPED), ("a", BUILT)]
    assert again[1].stages == (("gguf_convert", 4.0),)


def test_old_logs_go_beyond_the_budget_and_running_builds_never(tmp_path: Path) -> None:
    records = BuildRecords(tmp_path, logs_bytes=250)
    records.begin(_record("f", began_ms=0))
    (tmp_path / f"{'f' * 64}.log").write_bytes(bytes(200))
    for began, letter in enumerate("abc", start=1):
        _ended(records, letter, began_ms=began, log=bytes(100))
    records.begin(_record("d", began_ms=9))
    records.end("d" * 64, state=FAILED, ended_ms=10, reason="no")
    left = {file.name[0] for file in tmp_path.glob("*.log")}
    assert left == {"f", "b", "c"}
    assert {record.key[0] for record in records.newest_first()} == {"f", "b", "c", "d"}


def test_the_end_of_a_log_is_bounded_and_shows_no_credential(tmp_path: Path) -> None:
    records = BuildRecords(tmp_path)
    secret = "hf_" + "a" * 30
    lines = [f"line {number} of a long log" for number in range(20_000)] + [f"token={secret}", "end"]
    _ended(records, "a", log="\n".join(lines).encode())
    assert (tmp_path / f"{'a' * 64}.log").stat().st_size > MAX_TAIL_BYTES
    assert records.log_tail("a" * 64, 2) == ["token=[hidden]", "end"]
    assert len(records.log_tail("a" * 64, 10**6)) == 1000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass-word@host/x", "https://[hidden]@host/x"),
        ("GET https://s3/x?X-Amz-Signature=0123456789abcdef&b=1", "GET https://s3/x?X-Amz-Signature=[hidden]&b=1"),
        ("Authorization: Bearer abcdefgh123", "Authorization: Bearer [hidden]"),
        ("aws AKIAABCDEFGHIJKLMNOP.", "aws [hidden]."),
        ("special token <|im_end|> is 2, 49152 tokens: 12 s", "special token <|im_end|> is 2, 49152 tokens: 12 s"),
    ],
)
def test_what_looks_like_a_credential_is_hidden_and_other_words_are_not(text: str, shown: str) -> None:
    assert redacted(text) == shown


PAST = [
    PastBuild("gguf", "Q8_0", 100, (("gguf_convert", 10.0), ("gguf_quantise", 2.0), ("store", 1.0))),
    PastBuild("gguf", "Q4_K_M", 100, (("gguf_convert", 10.0), ("gguf_quantise", 6.0), ("store", 1.0))),
    PastBuild("mlx", "4bit", 100, (("mlx_convert", 5.0),)),
]


def test_the_time_left_is_that_of_earlier_builds_of_the_same_recipe() -> None:
    assert seconds_left(PAST, "gguf", "Q4_K_M", 100, stage="gguf_convert", elapsed_s=4.0) == 6 + 6 + 1
    assert seconds_left(PAST, "gguf", "Q8_0", 100, stage="gguf_quantise", elapsed_s=0.0) == 3
    # It takes longer than before: what follows is still to come.
    assert seconds_left(PAST, "gguf", "Q8_0", 100, stage="gguf_convert", elapsed_s=50.0) == 3
    # Another recipe of the runtime, and a model ten times larger.
    assert seconds_left(PAST, "gguf", "Q6_K", 1000, stage="store", elapsed_s=0.0) == 10


def test_what_was_never_measured_is_not_guessed() -> None:
    assert seconds_left(PAST, "onnx", "int4", 100, stage="onnx_build", elapsed_s=1.0) is None
    assert seconds_left(PAST, "gguf", "Q8_0", 100, stage="something_new", elapsed_s=1.0) is None
    assert build_estimate.words(None) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2, "about to end"), (42, "about 40 s left"), (125, "about 2 min left"), (7300, "about 2 h left")],
)
def test_the_time_left_is_told_as_exactly_as_it_is_known(seconds: float, said: str) -> None:
    assert build_estimate.words(seconds) == said


def test_stages_are_timed_without_their_waiting() -> None:
    times = iter([0.0, 5.0, 8.0, 10.0, 11.0])
    clock = StageClock(lambda: next(times))
    assert clock.heard("gguf_convert", waits=True) == 0.0
    assert clock.heard("gguf_convert", waits=True) == 0.0
    assert clock.heard("gguf_convert", waits=False) == 3.0
    assert clock.heard("store", waits=False) == 0.0
    assert clock.stages() == (("gguf_convert", 5.0), ("store", 1.0))


async def test_operators_are_shown_builds_and_told_what_is_not_there(tmp_path: Path) -> None:
    records = BuildRecords(tmp_path)
    _ended(records, "a", began_ms=1)
    records.begin(_record("b", began_ms=2))
    builds = Builds(records)
    assert [(view.build_key[0], view.state) for view in builds.listed(0).builds] == [("b", "running"), ("a", "built")]
    answer = await builds.log("aaa", 1)
    assert (list(answer.lines), answer.build.stages[0].name) == (["two"], "gguf_convert")
    for prefix, said in (("x", "no build begins with 'x'"), ("", "no build"), ("b", "it left no log")):
        with pytest.raises(BadInput, match=said):
            await builds.log(prefix, 5)
    (tmp_path / f"{'a' * 63}0.json").write_text(json.dumps({}))
    records.begin(BuildRecord("ab" + "0" * 62, "m", "gguf", "Q8_0", "gguf Q8_0", 1, 3))
    with pytest.raises(BadInput, match="2 builds begin with 'a'; give more"):
        await builds.log("a", 5)
