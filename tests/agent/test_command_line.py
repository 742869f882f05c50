"""What is wrong with the arguments of `edgewright-agent` is one line with the command's name, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_agent import cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND; see edgewright-agent --help"),
        (["runn"], "invalid choice: 'runn'"),
        (["enroll"], "the following arguments are required: --token; see edgewright-agent enroll --help"),
        (["run", "--conf", "agent.toml"], "unrecognized arguments: --conf"),
        (["run", "--config", "/dev/zero"], "/dev/zero: larger than 1,048,576 bytes"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as ending:
        code = int(ending.code or 0)
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edgewright-agent: ")
    assert said in line


def test_help_is_given_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["run", "--help"], ["enroll", "--help"], ["status", "--help"]):
        with pytest.raises(SystemExit) as ending:
            cli.main(arguments)
        assert ending.value.code == 0
        assert "usage: edgewright-agent" in capsys.readouterr().out


def test_a_state_folder_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agent.toml").write_text('state = "state"')
    (tmp_path / "state").write_text("")
    assert cli.main(["run", "--config", str(tmp_path / "agent.toml")]) == 1
    assert f"{tmp_path / 'state'}: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (None, ""),  # nobody knows yet, so nothing is claimed
        ([], "in all that this version knows"),
        (["own user", "files"], "all but: own user, files"),
    ],
)
def test_what_confines_engines_is_said_when_it_is_known(lacking: list[str] | None, said: str) -> None:
    assert cli._confined(lacking) == said
