"""Sending, measured: pull_ratio, agent_rss_mb, controller_cpu_s_per_512mb, stalled_200_rss_mb, slowest_vs_median and
bytes_after_50_cuts_ratio of section [delivery] of the figures.

usage: python benchmarks/delivery_pull.py [--runs N] [--devices N] [--cuts N] [--only pull readers cuts …]

A real controller process with artifacts of random tensors. pull: a device's process downloads 512 MB as the agent does,
over mutual TLS with every check, in turns with a process that has the standard library do the same work from nginx
(mutual TLS, sha256, written, synced). readers: so many devices that read nothing, and then as many that read 16 MiB
each. cuts: one download of 512 MB over a link that is cut at random bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # what the tests have for this stands in `tests`
os.chdir(ROOT)  # so do the processes that it starts

from edgewright_contract.targets import ImageTarget  # noqa: E402
from tests.delivery_load import nginx  # noqa: E402
from tests.delivery_load.relay import Relay  # noqa: E402
from tests.delivery_load.room import DeviceFiles, Room, child, pull_given  # noqa: E402

HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
MIB: Final = 1 << 20
LARGE, SMALL, SHARED = 512 * MIB, 128 * MIB, 16 * MIB
STALLED_FOR_S: Final = 15.0
PARTS: Final = ("pull", "readers", "cuts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures downloads; prints one JSON line for each figure.")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgewright-delivery-") as folder:
        for part in given.only:
            room = Room(Path(folder) / part)
            try:
                if part == "pull":
                    _pull(room, given.runs)
                elif part == "readers":
                    _readers(room, given.devices)
                else:
                    _cuts(room, given.cuts, given.seed)
            finally:
                room.close()
                shutil.rmtree(room.folder)


def _pull(room: Room, runs: int) -> None:
    large, small, device = room.add(LARGE), room.add(SMALL), room.device("jetson-01")
    room.serve()
    weights = room.weights(large)
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    ours, theirs, served, beside = [], [], [], []
    of_small = _pulled(room, small, device)
    with nginx.serving(weights.parent, room.server_pair(), device.ca, room.folder / "nginx") as (port, server):
        plain: dict[str, Any] = {"host": "localhost", "port": port, "path": "/model.gguf", "sha256": sha256}
        plain |= {"size": weights.stat().st_size, "file": str(room.folder / "plain.gguf")}
        plain["device"] = {name: str(path) for name, path in asdict(device).items()}
        for _ in range(runs):
            before = room.cpu_s()
            ours.append(_pulled(room, large, device))
            served.append(room.cpu_s() - before)
            before = nginx.cpu_s(server)
            theirs.append(child("tests.delivery_load.https_child", plain))
            beside.append(nginx.cpu_s(server) - before)
            Path(plain["file"]).unlink()
    rates = [[round(LARGE / 1e6 / one["seconds"]) for one in some] for some in (ours, theirs)]
    cpu = [statistics.median(one["cpu_s"] for one in some) for some in (ours, theirs)]
    ratio = statistics.median(one["seconds"] for one in theirs) / statistics.median(one["seconds"] for one in ours)
    of = f"512 MB, {runs} runs in turns, MB/s {rates[0]}, processor {cpu[0]:.2f} s"
    baseline = f"http.client from nginx, mutual TLS, sha256, written and synced: MB/s {rates[1]}, {cpu[1]:.2f} s"
    _figure("delivery.pull_ratio", ratio, "x", of, baseline=baseline, ratio=ratio)
    rss_mb = max(one["rss_mb"] for one in ours)
    _figure("delivery.agent_rss_mb", rss_mb, "MB", f"peak at 512 MB; at 128 MB {of_small['rss_mb']:.1f}")
    _figure(
        "delivery.controller_cpu_s_per_512mb",
        statistics.median(served),
        "s",
        f"median of {runs} pulls, the least {min(served):.2f}",
        baseline=f"nginx in the same turns: {statistics.median(beside):.2f} s, the least {min(beside):.2f}",
    )


def _pulled(room: Room, target: ImageTarget, device: DeviceFiles, address: str = "") -> dict[str, Any]:
    state = room.folder / "device"
    try:
        return child("tests.delivery_load.pull_child", pull_given(address or room.address, target, device, state))
    finally:
        shutil.rmtree(state)


def _readers(room: Room, count: int) -> None:
    target = room.add(SHARED)
    files = [room.device(f"jetson-{number:03}") for number in range(count)]
    room.serve()
    given = {"address": room.address, "target": asdict(target), "block_count": room.block_count(target)}
    given["devices"] = [{name: str(path) for name, path in asdict(one).items()} for one in files]
    _active(given, 1)  # what the first download takes for good
    before, most = room.rss_mb(), 0.0
    command = [sys.executable, "-m", "tests.delivery_load.readers", json.dumps(given | {"how": "stalled"})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        begun = json.loads(process.stdout.readline())["begun"]
        until = time.monotonic() + STALLED_FOR_S
        while time.monotonic() < until:
            most = max(most, room.rss_mb())
            time.sleep(0.2)  # between two looks
        process.communicate(b"\n")
    of = f"{begun} devices that took one part of a download and no more, the most within {STALLED_FOR_S:.0f} s"
    _figure("delivery.stalled_200_rss_mb", most - before, "MB", f"{of}; {before:.0f} MB before")
    times = sorted(_active(given, count))
    middle = statistics.median(times)
    of = f"{count} devices that read 16 MiB each at once: median {middle:.1f} s, fastest {times[0]:.1f}, "
    _figure("delivery.slowest_vs_median", times[-1] / middle, "x", f"{of}slowest {times[-1]:.1f}")


def _active(given: dict[str, Any], count: int) -> list[float]:
    given = given | {"how": "active", "devices": given["devices"][:count]}
    command = [sys.executable, "-m", "tests.delivery_load.readers", json.dumps(given)]
    found: list[float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _cuts(room: Room, count: int, seed: int) -> None:
    target, device = room.add(LARGE), room.device("jetson-01")
    room.serve()
    chance = random.Random(seed)
    cuts_at = sorted(chance.randrange(LARGE) for _ in range(count))
    relay = Relay(int(room.address.rpartition(":")[2]), cuts_at)
    try:
        _pulled(room, target, device, f"127.0.0.1:{relay.port}")
        ratio = relay.came / LARGE
        of = f"{relay.came:,} bytes came to the device for 512 MB over a link that was cut {relay.cuts} times"
        _figure("delivery.bytes_after_50_cuts_ratio", ratio, "x", of)
    finally:
        relay.close()


def _figure(name: str, value: float, unit: str, of: str, *, baseline: str = "", ratio: float | None = None) -> None:
    line = {"name": name, "value": round(value, 3), "unit": unit, "of": of, "baseline": baseline}
    print(json.dumps(line | {"ratio": ratio if ratio is None else round(ratio, 3), "host": HOST}), flush=True)


if __name__ == "__main__":
    main()
