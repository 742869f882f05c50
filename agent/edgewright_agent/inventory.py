"""What the device is: system, memory, disk, accelerators, runtimes. Looked at, never measured by running a model."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from edgewright_agent import __version__
from edgewright_agent.engines import catalogue
from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_contract import digest
from edgewright_contract.v1 import agent_pb2

# Free space changes by the second; an inventory that says so each time would be sent each time. Where there is little,
# little counts.
_DISK_STEPS: Final = ((8 << 30, 256 << 20), (1 << 30, 32 << 20), (0, 4 << 20))
_NVIDIA_CARDS: Final = Path("/proc/driver/nvidia/gpus")
_TEGRA_MODEL: Final = Path("/proc/device-tree/model")
_TEGRA_GPU: Final = Path("/dev/nvhost-gpu")


def look(state: Path, settings: Mapping[str, EngineSettings], reserve: int) -> agent_pb2.Inventory:
    """The inventory now; of the disk, `reserve` bytes are nobody's, below 0: so many are to be had besides.

    Asks each engine's interpreter the first time, so call it in a thread. Raises OSError."""
    disk = shutil.disk_usage(state)
    return agent_pb2.Inventory(
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu(),
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        disk_total_bytes=disk.total,
        disk_free_bytes=room(disk.free, reserve),
        accelerators=_accelerators(),
        runtimes=catalogue.available(settings, tuple(settings)),
        agent_version=__version__,
        python_version=platform.python_version(),
    )


def room(free: int, reserve: int) -> int:
    """Bytes that artifacts may take of the `free` ones."""
    usable = max(free - reserve, 0)
    step = next(step for least, step in _DISK_STEPS if usable >= least)
    return usable // step * step


def digest_of(inventory: agent_pb2.Inventory) -> str:
    """The digest by which the controller knows whether it has this inventory."""
    return digest.of_bytes(inventory.SerializeToString(deterministic=True))


def _cpu() -> str:
    if sys.platform == "linux":
        names = ("model name", "hardware", "processor")
        for line in _text(Path("/proc/cpuinfo")).splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in names and not value.strip().isdecimal():
                return value.strip()
    return platform.processor() or platform.machine()


def _accelerators() -> list[agent_pb2.Accelerator]:
    """What this machine has by the look of it. What an engine really uses, it says itself when it runs."""
    found = [agent_pb2.Accelerator(kind="cpu", name=_cpu())]
    if _NVIDIA_CARDS.is_dir():
        for card in sorted(_NVIDIA_CARDS.iterdir()):
            lines = dict(line.partition(":")[::2] for line in _text(card / "information").splitlines())
            found.append(agent_pb2.Accelerator(kind="cuda", name=lines.get("Model", "").strip() or card.name))
    elif _TEGRA_GPU.exists():
        found.append(agent_pb2.Accelerator(kind="cuda", name=_text(_TEGRA_MODEL).strip("\0\n") or "Tegra"))
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append(agent_pb2.Accelerator(kind="metal", name=_cpu()))
    if sys.platform == "win32" and "qualcomm" in platform.processor().lower():
        found.append(agent_pb2.Accelerator(kind="qnn", name=platform.processor()))
    return found


def _text(path: Path) -> str:
    """The file's text; empty where this kernel has none. It only adds a name to what is shown."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
