"""What the shell completes, asked through a real bash."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.controller.service_rig import Controller, controller, manifest, result

# What bash does at a press of the tab key, as far as it concerns us: it asks the function that was registered.
ASK = """
eval "$(edgewright --show-completion)"
read -r -a COMP_WORDS <<<"$LINE"
[[ $LINE == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p edgewright | sed 's/.*-F \\([^ ]*\\) .*/\\1/') edgewright
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


def offered(line: str, config: Path | str, home: Path) -> list[str]:
    """What bash offers for the last word of `line`. Nothing may be said on standard error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "LINE": line, "EDGEWRIGHT_CONFIG": str(config), "HOME": str(home)}
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout.split()


async def test_bash_completes_commands_devices_and_rollouts(fleet: Controller, tmp_path: Path) -> None:
    names = ["jetson-01", "jetson-02", "mac-01"]
    devices = [await fleet.enrol(name) for name in names]
    async with devices[0].living(), devices[1].living(), devices[2].living():
        assert result(await fleet.apply(manifest(tmp_path, names), tmp_path)).succeeded

    async def asked(line: str) -> list[str]:
        return await asyncio.to_thread(offered, line, fleet.running.client_toml, tmp_path)

    assert await asked("edgewright dev") == ["devices"]
    assert await asked("edgewright devices co") == ["cordon"]
    assert await asked("edgewright devices show ") == names
    assert await asked("edgewright devices cordon jetson-01 j") == ["jetson-02"], "one is on the line already"
    assert await asked("edgewright rollback --device m") == ["mac-01"]
    assert await asked("edgewright rollout pause ") == ["rollout-1"]
    assert await asked("edgewright models show ") == ["tiny"]
    release = devices[0].status.active_release[:12]
    assert await asked(f"edgewright rollback {release[:3]}") == await asked("edgewright releases show ") == [release]


def test_without_a_controller_or_an_access_file_nothing_is_offered_and_nothing_said(tmp_path: Path) -> None:
    assert offered("edgewright devices sh", tmp_path / "none.toml", tmp_path) == ["show"]
    assert offered("edgewright devices show ", tmp_path / "none.toml", tmp_path) == []
    (tmp_path / "nobody.toml").write_text('address = "127.0.0.1:1"\ncertificate = "a"\nkey = "b"\nca = "c"\n')
    assert offered("edgewright rollout show ", tmp_path / "nobody.toml", tmp_path) == []


def test_groups_are_those_of_the_manifest_on_the_line(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[groups.lab]\n[groups.line]\n[groups.yard]\n")
    assert offered(f"edgewright apply {file} --group l", tmp_path / "none.toml", tmp_path) == ["lab", "line"]
    assert offered(f"edgewright plan {file} --group lab --group ", tmp_path / "none.toml", tmp_path) == ["line", "yard"]
    file.write_text("[groups")
    assert offered(f"edgewright apply {file} --group l", tmp_path / "none.toml", tmp_path) == []
    assert offered("edgewright apply nowhere.toml --group l", tmp_path / "none.toml", tmp_path) == []


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", "edgewright --install-completion; true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert "bash completion installed" in done.stdout, done.stderr
    assert "complete -o default -F" in (tmp_path / ".bash_completions" / "edgewright.sh").read_text()
    assert "edgewright.sh" in (tmp_path / ".bashrc").read_text()
