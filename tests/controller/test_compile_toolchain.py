"""Asking an interpreter for its toolchain: once, and again when its environment changes."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.toolchain import ToolchainMissing


def _interpreter(folder: Path) -> tuple[str, Path]:
    """A Python that keeps count of its starts in `folder`/starts."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\necho started >> {folder}/starts\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script), folder / "starts"


def _install(environment: Path, name: str, version: str) -> None:
    (packages,) = environment.glob("lib/python*/site-packages")
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_versions_of_this_interpreter_are_told_with_the_platform(tmp_path: Path) -> None:
    versions = toolchain.versions("mlx", sys.executable, tmp_path)
    (back_end,) = set(versions) & set(toolchain.BACK_ENDS["mlx"])
    assert set(versions) == {"mlx", "mlx-lm", "transformers", "platform", back_end}


def test_a_library_that_two_packages_bring_is_told_by_its_files(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment)
    python = str(environment / "bin" / "python")
    for name in toolchain.PACKAGES["gguf"]:
        _install(environment, name, "1.0")
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "gguf").mkdir()
    told = []
    for text in ("ARCH = 1", "ARCH = 2"):
        (packages / "gguf" / "__init__.py").write_text(text)
        told.append(toolchain.versions("gguf", python, tmp_path / text)["gguf"])
    assert all(one.startswith("1.0+") for one in told)
    assert told[0] != told[1]


def test_what_lies_in_the_folder_where_the_controller_runs_is_no_toolchain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = toolchain.versions("mlx", sys.executable, tmp_path / "honest")
    stray = tmp_path / "mlx_lm-9.9.9.dist-info"
    stray.mkdir()
    (stray / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-lm\nVersion: 9.9.9\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert toolchain.versions("mlx", sys.executable, tmp_path / "cache") == honest


def test_an_unchanged_interpreter_is_asked_once(tmp_path: Path) -> None:
    python, starts = _interpreter(tmp_path)
    first = toolchain.versions("gguf", python, tmp_path / "cache")
    assert toolchain.versions("gguf", python, tmp_path / "cache") == first
    assert starts.read_text() == "started\n"


def test_a_missing_toolchain_names_the_packages_and_the_extra(tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    with pytest.raises(ToolchainMissing) as caught:
        toolchain.versions("mlx", str(tmp_path / "env" / "bin" / "python"), tmp_path / "cache")
    assert "has no mlx, mlx-lm, transformers" in str(caught.value)
    assert "pip install 'edgewright[mlx]'" in str(caught.value)


def test_installing_what_was_missing_is_noticed_and_so_is_another_version(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment)
    python = str(environment / "bin" / "python")
    with pytest.raises(ToolchainMissing):
        toolchain.versions("mlx", python, tmp_path / "cache")
    for name in toolchain.PACKAGES["mlx"]:
        _install(environment, name, "1.0")
    assert toolchain.versions("mlx", python, tmp_path / "cache")["mlx"] == "1.0"
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "mlx-1.0.dist-info" / "METADATA").unlink()
    (packages / "mlx-1.0.dist-info").rmdir()
    _install(environment, "mlx", "2.0")
    assert toolchain.versions("mlx", python, tmp_path / "cache")["mlx"] == "2.0"


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false", "/bin/echo"])
def test_what_is_not_a_python_is_refused_by_name(tmp_path: Path, program: str) -> None:
    with pytest.raises(ToolchainMissing, match=program):
        toolchain.versions("onnx", program, tmp_path)


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path) -> None:
    python, starts = _interpreter(tmp_path)
    first = toolchain.versions("gguf", python, tmp_path / "cache")
    (tmp_path / "cache" / "toolchain-gguf.json").write_text("{")
    assert toolchain.versions("gguf", python, tmp_path / "cache") == first
    assert starts.read_text() == "started\nstarted\n"
