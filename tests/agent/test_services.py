"""The service definitions: what a service manager will read, read here first."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from edgewright_agent import cli

SERVICES = Path(__file__).resolve().parents[2] / "agent" / "services"
UNIT = SERVICES / "edgewright-agent.service"
USERS = SERVICES / "edgewright-engine-user.conf"
PROGRAM = "/opt/edgewright/bin/edgewright-agent"
ANALYZE = shutil.which("systemd-analyze")


def unit_settings() -> list[tuple[str, str]]:
    lines = [line for line in UNIT.read_text().splitlines() if line and not line.startswith(("#", "["))]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def commands() -> dict[str, list[str]]:
    """What each service manager starts, without the program's path."""
    unit = dict(unit_settings())["ExecStart"].split()
    plist = plistlib.loads((SERVICES / "ai.edgewright.agent.plist").read_bytes())["ProgramArguments"]
    windows = xml.etree.ElementTree.parse(SERVICES / "edgewright-agent.xml")
    return {
        "systemd": unit[1:],
        "launchd": plist[1:],
        "Windows": (windows.findtext("arguments") or "").replace('"', "").split(),
    }


@pytest.mark.parametrize("manager", ["systemd", "launchd", "Windows"])
def test_what_a_service_manager_starts_is_a_command_of_the_agent(manager: str) -> None:
    command, option, file = commands()[manager]
    given = cli._parser().parse_args([command, option, file])
    assert (given.command, given.config) == (cli._run, Path(file))


def test_a_setting_stands_once_and_the_agent_is_tried_again_for_ever_as_a_user_of_its_own() -> None:
    settings = unit_settings()
    assert len({key for key, _ in settings}) == len(settings)
    expected = {
        "Restart": "always",
        "StartLimitIntervalSec": "0",
        "User": "edgewright",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
        "KillMode": "mixed",
        "NoNewPrivileges": "true",
        "Delegate": "memory pids",
    }
    assert expected.items() <= dict(settings).items()
    # What would take from the agent what it confines engines with, or from engines their accelerator.
    assert not {"ProtectControlGroups", "RestrictNamespaces", "ProtectClock", "PrivateDevices"} & dict(settings).keys()


def complaints(unit: Path) -> str:
    assert ANALYZE is not None
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    return "\n".join(line for line in done.stderr.splitlines() if unit.name in line or USERS.name in line)


@pytest.mark.skipif(ANALYZE is None, reason="no systemd here, so nobody who could judge its unit")
def test_systemd_has_nothing_against_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The program is not installed where the tests run; anything that can be executed stands in for it.
    text = UNIT.read_text().replace(PROGRAM, sys.executable)
    unit.write_text(text)
    assert complaints(unit) == ""
    unit.write_text(text.replace("KillMode=mixed", "KillMode=sometimes").replace("RestartSec", "RestartSecs"))
    told = complaints(unit)
    assert "KillMode" in told or "kill mode" in told
    assert "RestartSecs" in told


def test_with_users_for_engines_the_agent_is_root_with_what_that_takes() -> None:
    lines = USERS.read_text().splitlines()
    assert "User=root" in lines
    assert lines[-2] == "CapabilityBoundingSet="  # a second line would add to what the unit says
    capabilities = set(lines[-1].partition("=")[2].split())
    needed = {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN", "CAP_FOWNER", "CAP_KILL"}
    assert needed | {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_DAC_OVERRIDE"} == capabilities


@pytest.mark.skipif(ANALYZE is None, reason="no systemd here, so nobody who could judge its unit")
def test_systemd_has_nothing_against_users_for_engines(tmp_path: Path) -> None:
    unit, dropped_in = tmp_path / UNIT.name, tmp_path / f"{UNIT.name}.d" / USERS.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    dropped_in.parent.mkdir()
    dropped_in.write_text(USERS.read_text())
    assert complaints(unit) == ""
    dropped_in.write_text(USERS.read_text().replace("User=", "Usr="))
    assert "Usr" in complaints(unit)
