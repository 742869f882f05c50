"""The calibration text: what is one, and where mlx-lm's learning recipes find it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile import calibration, child
from edgewright_controller.compile.calibration import CalibrationError

TEXTS = calibration.SHIPPED.parent


def test_the_shipped_text_is_long_enough_and_not_what_the_gate_judges_with() -> None:
    text = calibration.shipped()
    words = text.path.read_text().split()
    assert text == calibration.read(calibration.SHIPPED)
    # Even a vocabulary that has a token for every word and its neighbour needs the least number of tokens.
    assert len(words) * 4 // 3 > calibration.LEAST_TOKENS
    runs = {tuple(words[at : at + 8]) for at in range(len(words) - 8)}
    others = [path for path in TEXTS.glob("*.txt") if path != calibration.SHIPPED]
    assert len(others) == 5
    for path in others:
        judged = path.read_text().split()
        assert not runs & {tuple(judged[at : at + 8]) for at in range(len(judged) - 8)}, path.name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"Too little. " * 20, r"240 bytes of text; calibration needs at least 4,096 tokens, about 16,384 bytes"),
        (b"caf\xe9 " * 2000, r"is not UTF-8 text \(byte 3\)"),
    ],
)
def test_what_is_no_calibration_text_is_refused_by_its_path(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CalibrationError, match=f"text.txt: .*{words}"):
        calibration.read(path)


@pytest.fixture
def learning() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(child.CHILDREN))
        yield importlib.import_module("mlx_learn")


@pytest.mark.parametrize(
    ("learned", "expected"),
    [
        ("awq", {"--bits": "4", "--group-size": "32", "--embed-bits": "4", "--embed-group-size": "32"}),
        ("gptq", {"--bits": "4", "--group-size": "32", "--fallback-bits": "4", "--fallback-group-size": "32"}),
        ("dynamic", {"--low-bits": "4", "--high-bits": "5", "--low-group-size": "32", "--target-bpw": "5.5"}),
        ("dwq", {"--bits": "4", "--group-size": "32", "--batch-size": "1"}),
    ],
)
def test_bits_and_groups_reach_mlx_lms_command(
    learning: Any, tmp_path: Path, learned: str, expected: dict[str, str]
) -> None:
    request = {"source": "S", "out": "O", "learned": learned, "bits": 4, "group_size": 32}
    given = learning.arguments(request, "word " * 3000, tmp_path)
    found = dict(zip(given[::2], given[1::2], strict=True))
    assert (found["--model"], found["--mlx-path"]) == ("S", "O")
    assert found.items() >= expected.items()
    if learned == "dwq":
        lines = (Path(found["--data-path"]) / "train.jsonl").read_text().splitlines()
        assert "".join(json.loads(line)["text"] for line in lines) == "word " * 3000
        assert int(found["--num-samples"]) < len(lines)  # the rest is what it measures with
