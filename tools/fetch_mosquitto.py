#!/usr/bin/env python3
"""Make a mosquitto broker available below `.tools/`, where the system has none. Needs no root.

    python3 tools/fetch_mosquitto.py [FOLDER]          FOLDER: where to put it, .tools beside this folder by default

On Debian and Ubuntu the package and those of its dependencies that are not installed are downloaded with apt
(which checks their signatures) and unpacked, never installed: no service starts. Elsewhere one line says how
to install it. Doing it again changes nothing. Standard library only, since this runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEADLINE_S = 300
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
HOW_TO_INSTALL = (
    "install it with your system's package manager, for example "
    "`brew install mosquitto`, `sudo dnf install mosquitto`, `sudo pacman -S mosquitto` or `winget install mosquitto`"
)


class FetchFailed(Exception):
    """The broker could not be had; the message says what to do."""


def main(arguments: list[str]) -> int:
    """Fetch, say in one line what there is, and return the exit status."""
    tools = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / ".tools"
    try:
        sys.stdout.write(f"mosquitto: {fetch(tools.resolve())}\n")
    except FetchFailed as error:
        sys.stderr.write(f"mosquitto: {error}\n")
        return 1
    return 0


def fetch(tools: Path) -> Path:
    """The broker's program: the system's own, the one fetched before, or one fetched now. Raises FetchFailed."""
    if installed := installed_broker():
        return installed
    home = tools / "mosquitto"
    program = home / "usr/sbin/mosquitto"
    if program.exists() and runs(home):
        return program
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FetchFailed(f"not installed; {HOW_TO_INSTALL}")
    tools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mosquitto-", dir=tools) as scratch:
        fresh = Path(scratch, "unpacked")
        for package in download(Path(scratch)):
            command(["dpkg-deb", "--extract", str(package), str(fresh)])
        if not runs(fresh):
            raise FetchFailed(f"the unpacked packages do not run here; {HOW_TO_INSTALL}")
        if home.exists():  # the remains of another release of the system
            home.rename(Path(scratch, "old"))
        fresh.rename(home)
    return program


def installed_broker() -> Path | None:
    """The system's mosquitto. Its folder is often missing from the PATH of ordinary users."""
    search = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS))
    found = shutil.which("mosquitto", path=search)
    return Path(found) if found else None


def download(scratch: Path) -> list[Path]:
    """The .deb files of mosquitto and of what it needs that is not installed. Raises FetchFailed."""
    packages = scratch / "packages"
    packages.mkdir()
    options = ["-o", "APT::Sandbox::User=root"]  # apt's own user may not enter this folder
    try:
        return download_with(options, packages)
    except FetchFailed:
        # No package lists on this machine, or stale ones: fetch them into the scratch folder, which needs no root.
        for folder in ("lists/partial", "cache/archives/partial"):
            scratch.joinpath(folder).mkdir(parents=True)
        options += ["-o", f"Dir::State::Lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
        command(["apt-get", *options, "-qq", "update"])
        return download_with(options, packages)


def download_with(options: list[str], packages: Path) -> list[Path]:
    """Download with these apt options. Raises FetchFailed."""
    planned = command(["apt-get", *options, "--simulate", "--no-install-recommends", "install", "mosquitto"])
    names = [line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")]
    if "mosquitto" not in names:
        raise FetchFailed(f"apt-get names no package to install; {HOW_TO_INSTALL}")
    command(["apt-get", *options, "-qq", "download", *names], folder=packages)
    return sorted(packages.glob("*.deb"))


def command(line: list[str], folder: Path | None = None) -> str:
    """The command's output. Raises FetchFailed with its last words."""
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchFailed(f"{line[0]}: {error}; {HOW_TO_INSTALL}") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise FetchFailed(f"`{' '.join(line)}` failed: {words}; {HOW_TO_INSTALL}")
    return done.stdout


def runs(home: Path) -> bool:
    """Whether the broker unpacked in `home` finds all its libraries."""
    libraries = [str(folder) for pattern in ("usr/lib/*-linux-*", "lib/*-linux-*") for folder in home.glob(pattern)]
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    try:
        asked = subprocess.run(
            [home / "usr/sbin/mosquitto", "-h"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "mosquitto version" in asked.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
