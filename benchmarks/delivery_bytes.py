"""What updates of the demo's model cost on the line: seven of a GGUF, six each of an MLX and an ONNX folder.

usage: python benchmarks/delivery_bytes.py [--model FOLDER] [--only gguf mlx onnx]

Each pair (update_pairs.py) is put into the store of a real controller, which makes the pack in a process of its own;
then the agent's own download gets the new artifact over gRPC and mutual TLS, holding the old one. Counted is what
FetchBlocks brings in `data`; documents (bundle and block index) are counted apart. Beside it, on the same pairs:
FastCDC at 64 KiB, whole tensors, and zstd -3 --patch-from. CPU seconds: of cutting, comparing and packing where the
update is made, of the download's thread where it is put together, of the same work by the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import other_schemes, update_pairs  # noqa: E402 - the path comes first
from benchmarks.other_schemes import Cost  # noqa: E402
from benchmarks.update_pairs import Pair  # noqa: E402
from edgewright_agent.cancellation import Cancellation  # noqa: E402
from edgewright_agent.device_key import FileKey  # noqa: E402
from edgewright_agent.download import pull  # noqa: E402
from edgewright_agent.fetch_plan import prepare  # noqa: E402
from edgewright_agent.journal import DownloadJournal  # noqa: E402
from edgewright_agent.link import Credentials, Link  # noqa: E402
from edgewright_agent.slots import Slots  # noqa: E402
from edgewright_contract.targets import ImageTarget  # noqa: E402
from edgewright_contract.v1 import agent_pb2  # noqa: E402
from edgewright_controller.compile.store import ArtifactStore, Stored  # noqa: E402
from edgewright_controller.delivery import making  # noqa: E402
from edgewright_controller.delivery.packs import PackKey, Packs  # noqa: E402
from tests.artifacts import build_all  # noqa: E402
from tests.controller.service_rig import Device, controller  # noqa: E402

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
    """One pair: what ours costs, bytes of documents, what the controller held while it made the pack, the others."""

    pair: Pair
    ours: Cost
    documents: int
    making_rss: int
    others: dict[str, Cost]


class Counting:
    """The agent's line to its controller, with what comes over it counted."""

    def __init__(self, link: Link) -> None:
        self._link, self.name = link, link.name
        self.blocks = self.documents = 0

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        """As Link has it."""
        data = self._link.fetch_object(sha256, length, cancellation)
        self.documents += len(data)
        return data

    def fetch_blocks(self, *asked: Any, **also: Any) -> Generator[agent_pb2.BlockPart, None, None]:
        """As Link has it."""
        for part in self._link.fetch_blocks(*asked, **also):
            self.blocks += len(part.data)
            yield part


class Fetcher:
    """An agent's folders and its line."""

    def __init__(self, state: Path, device: Device) -> None:
        state.mkdir()
        for name, data in (
            ("key", device.key_pem),
            ("chain", device.welcome.certificate_chain_pem),
            ("ca", device.welcome.ca_pem),
        ):
            (state / name).write_bytes(data)
        credentials = Credentials(FileKey(state / "key", device.key_pem), state / "chain", state / "ca")
        self._link = Link(device.welcome.controller_address, credentials)
        self.slots, self._journal = Slots(state), DownloadJournal(state / "agent.sqlite")

    def pull(self, runtime: str, wanted: Stored, reuse: tuple[str, ...] = ()) -> tuple[Counting, float]:
        """Get an artifact; what came, and CPU seconds of this thread."""
        target = ImageTarget(
            kind="model",
            name="smollm2",
            hw_class=f"{runtime}-cpu",
            runtime=runtime,
            bundle=wanted.bundle,
            bundle_length=wanted.bundle_length,
            block_index=wanted.block_index,
            block_index_length=wanted.block_index_length,
        )
        source, cancellation, began = Counting(self._link), Cancellation(), time.thread_time()
        plan = prepare(target, source, self.slots, reuse=reuse, reserve=0, cancellation=cancellation)
        pull(plan, source, self.slots, self._journal, progress=lambda *_: None, cancellation=cancellation)
        self.slots.verify(wanted.bundle)
        return source, time.thread_time() - began

    def close(self) -> None:
        """Close the line."""
        self._link.close()
        self._journal.close()


def packed(state: Path, folder: Path, base: Stored) -> tuple[Stored, float, int]:
    """In a process of its own: put the artifact of `folder` into the store and compare it with `base`; what is stored,
    CPU seconds of both, and bytes that the process held at most."""
    command = [sys.executable, __file__, "--pack", str(state), str(folder), base.bundle, base.block_index]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Stored(**answer["stored"]), answer["cpu_s"], answer["rss"]


def pack(state: Path, folder: Path, base: str, base_index: str) -> None:
    """What `packed` runs. The base is in the store; storing is counted without the copy that comes before it."""
    store, packs = ArtifactStore(state / "store"), Packs(state / "store" / "deltas")
    out = state / "store" / "out"
    shutil.copytree(folder, out, copy_function=shutil.copyfile)
    began = time.thread_time()
    stored = store.add(out)
    making.make(store, packs, PackKey(stored.bundle, stored.block_index, base), base_index)
    making.make(store, packs, PackKey(stored.bundle, stored.block_index), "")
    cpu_s = time.thread_time() - began
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"stored": asdict(stored), "cpu_s": cpu_s, "rss": rss}))


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
            wanted, making_s, rss = await asyncio.to_thread(packed, state, pair.wanted, bases[pair.base])
            came, applying_s = await asyncio.to_thread(fetcher.pull, runtime, wanted, (bases[pair.base].bundle,))
            others = {
                "FastCDC 64K": other_schemes.by_content(pair.base, pair.wanted),
                "whole tensors": other_schemes.whole_tensors(pair.base, pair.wanted),
            }
            if other_schemes.ZSTD:
                others["zstd --patch-from"] = other_schemes.patch_from(pair.base, pair.wanted)
            rows.append(Row(pair, Cost(came.blocks, making_s, applying_s), came.documents, rss, others))
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
    most = max(row.making_rss for row in rows) / MB
    return "\n".join([*lines, f"making a pack held {most:,.0f} MB at most, Python and its modules included"])


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
