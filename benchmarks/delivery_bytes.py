"""What updates of the demo's model cost on the line: seven of a GGUF, six each of an MLX and an ONNX folder.

usage: python benchmarks/delivery_bytes.py [--model FOLDER] [--only gguf mlx onnx]

Each pair (update_pairs.py) is put into the store of a real controller, which makes the pack in a process of its own;
then the agent's own download gets the new artifact over gRPC and mutual TLS, holding the old one. Counted is what
FetchBlocks brings in `data`; documents (bundle and block index) are counted apart. Beside it, on the same pairs:
FastCDC at 64 KiB, whole tensors, and zstd -3 --patch-from. CPU seconds: where the update is made of hashing, cutting,
comparing and packing, blocks against nothing included; where it is put together of the download's thread, with all
files hashed twice; of the same by the others, who hash once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import other_schemes, update_pairs  # noqa: E402 - the path comes first
from benchmarks.other_schemes import Cost  # noqa: E402
from benchmarks.update_pairs import Pair  # noqa: E402
from edgewright_controller.compile.store import ArtifactStore, Stored  # noqa: E402
from edgewright_controller.delivery import making  # noqa: E402
from edgewright_controller.delivery.packs import PackKey, Packs  # noqa: E402
from tests.artifacts import build_all  # noqa: E402
from tests.controller.service_rig import controller  # noqa: E402
from tests.end_to_end.fetcher import Counting, Fetcher  # noqa: E402

HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
FIGURES: Final = {
    "template_edit": "delivery.template_edit_mb",
    "two_layers": "delivery.two_layers_mb",
    "all_requantised": "delivery.all_requantised_mb",
}
MB: Final = 1e6


def note(text: str) -> None:
    """What is under way, and the tables."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Row:
    """One pair: what ours costs, bytes of documents, by how many bytes making the packs made a process grow, the
    others."""

    pair: Pair
    ours: Cost
    documents: int
    making_growth: int
    others: dict[str, Cost]


def packed(state: Path, folder: Path, base: Stored) -> tuple[Stored, float, int]:
    """In a process of its own: put the artifact of `folder` into the store and compare it with `base`; what is stored,
    CPU seconds of both, and by how many bytes the process grew meanwhile."""
    command = [sys.executable, __file__, "--pack", str(state), str(folder), base.bundle, base.block_index]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Stored(**answer["stored"]), answer["cpu_s"], answer["growth"]


def pack(state: Path, folder: Path, base: str, base_index: str) -> None:
    """What `packed` runs. The base is in the store; storing is counted without the copy that comes before it."""
    store, packs = ArtifactStore(state / "store"), Packs(state / "store" / "deltas")
    out = state / "store" / "out"
    shutil.copytree(folder, out, copy_function=shutil.copyfile)
    began, held = time.thread_time(), _most_held()
    stored = store.add(out)
    making.make(store, packs, PackKey(stored.bundle, stored.block_index, base), base_index)
    making.make(store, packs, PackKey(stored.bundle, stored.block_index), "")
    cpu_s = time.thread_time() - began
    print(json.dumps({"stored": asdict(stored), "cpu_s": cpu_s, "growth": _most_held() - held}))


def _most_held() -> int:
    """Bytes that this process has held at most. (What getrusage says is that of its parent, if that was larger.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise SystemExit("/proc/self/status does not say VmHWM; this runs on Linux")


def fetched(fetcher: Fetcher, runtime: str, wanted: Stored, *reuse: str) -> tuple[Counting, float]:
    """What came, and CPU seconds of this thread."""
    began = time.thread_time()
    came = fetcher.pull(runtime, wanted, *reuse)
    return came, time.thread_time() - began


async def measured(runtime: str, built: Path, place: Path) -> list[Row]:
    """All pairs of one format."""
    pairs = update_pairs.make(runtime, built, place / "pairs")
    state = place / "controller"
    store = ArtifactStore(state / "store")
    bases: dict[Path, Stored] = {}
    for pair in pairs:
        if pair.base not in bases:
            shutil.copytree(pair.base, state / "store" / "out", copy_function=shutil.copyfile)
            bases[pair.base] = store.add(state / "store" / "out")
    rows = []
    async with controller(state) as fleet:
        fetcher = Fetcher(place / "agent", await fleet.enrol("jetson-01"))
        for base in bases.values():
            await asyncio.to_thread(fetcher.pull, runtime, base)
        for pair in pairs:
            wanted, making_s, growth = await asyncio.to_thread(packed, state, pair.wanted, bases[pair.base])
            came, applying_s = await asyncio.to_thread(fetched, fetcher, runtime, wanted, bases[pair.base].bundle)
            others = {
                "FastCDC 64K": other_schemes.by_content(pair.base, pair.wanted),
                "whole tensors": other_schemes.whole_tensors(pair.base, pair.wanted),
            }
            if other_schemes.ZSTD:
                others["zstd --patch-from"] = other_schemes.patch_from(pair.base, pair.wanted)
            rows.append(Row(pair, Cost(came.blocks, making_s, applying_s), came.documents, growth, others))
            note(f"{runtime} {pair.name}: {came.blocks:,} bytes")
            fetcher.slots.remove(wanted.bundle)
        fetcher.close()
    return rows


def table(runtime: str, rows: Sequence[Row]) -> str:
    """A table for a person: MB to fetch, and CPU seconds where it is made + where it is put together."""
    schemes = ["Edgewright", *rows[0].others]
    lines = [
        f"| {runtime} | " + " | ".join(schemes) + " | documents |",
        "|---" * (len(schemes) + 2) + "|",
    ]
    for row in rows:
        costs = [row.ours, *row.others.values()]
        cells = [f"{one.fetched / MB:.4f} ({one.making_s:.2f} + {one.applying_s:.2f})" for one in costs]
        lines.append(f"| {row.pair.what} | " + " | ".join(cells) + f" | {row.documents / MB:.3f} |")
    most = max(row.making_growth for row in rows) / MB
    return "\n".join([*lines, f"storing, cutting and packing made a process grow by {most:,.1f} MB at most"])


def figures(rows: Sequence[Row]) -> None:
    """One JSON line for each figure."""
    for row in rows:
        known = FIGURES.get(row.pair.name) if row.pair.runtime == "gguf" else None
        name = known or f"delivery.{row.pair.runtime}_{row.pair.name}_mb"
        baseline = ", ".join(f"{scheme}: {cost.fetched / MB:.4f}" for scheme, cost in row.others.items())
        value = round(row.ours.fetched / MB, 5)
        line = {"name": name, "value": value, "unit": "MB", "baseline": baseline, "host": HOST}
        print(json.dumps(line), flush=True)


def built_artifacts(model: Path) -> dict[str, Path]:
    """Runtime → artifact, as the demo has them, but for the GGUF, which is Q4_1."""
    with tempfile.TemporaryDirectory() as place:
        manifest = Path(place, "pairs.toml")
        text = (ROOT / "manifests" / "demo.toml").read_text()
        assert '"Q4_K_M"' in text
        manifest.write_text(text.replace('"Q4_K_M"', '"Q4_1"'))
        return dict(asyncio.run(build_all(model, manifest, ROOT / ".cache" / "tests")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures what updates cost on the line.")
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "demo" / "smollm2")
    parser.add_argument("--only", nargs="+", choices=sorted(update_pairs.MODELS), default=sorted(update_pairs.MODELS))
    parser.add_argument("--pack", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.pack:
        pack(Path(given.pack[0]), Path(given.pack[1]), *given.pack[2:])
        return 0
    if not other_schemes.ZSTD:
        note("zstd is not installed here: its column is left out")
    built = built_artifacts(given.model)
    for runtime in given.only:
        with tempfile.TemporaryDirectory(prefix="delivery-") as place:
            rows = asyncio.run(measured(runtime, built[runtime], Path(place)))
        figures(rows)
        note(table(runtime, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
