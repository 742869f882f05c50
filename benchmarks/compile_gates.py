"""The gates of compiled models, measured: section [compile] of the figures.

usage: python benchmarks/compile_gates.py [--state FOLDER] [--without-demo] [--only NAME …]

Silent faults are planted into builds of the trained test model that the real builder makes, at 4
and at 8 bits in each format that can carry them; honest builds of the test models, by many recipes, go the same way. A
fault that is stored is missed; an honest build that is not stored is refused. What each said goes to standard error.

The cost of the gate is processor time of the stages that measure, over the twelve recipes on the demo model, when the
source's own logits are known: the dearest of them counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # what is planted, and into what, stands in `tests`

from edgewright_controller.compile.builder import BuildFailed  # noqa: E402
from edgewright_controller.compile.child import Say  # noqa: E402
from edgewright_controller.compile.executor import Executor, StageJob  # noqa: E402
from edgewright_controller.compile.recipe import QUANTIZATIONS, Recipe, make  # noqa: E402
from edgewright_controller.compile.source import Source, inspect  # noqa: E402
from tests import models  # noqa: E402
from tests.planted.faults import FAULTS, Fault  # noqa: E402
from tests.planted.laboratory import Answer, Laboratory  # noqa: E402

HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"

PLANTED_INTO: Final = (
    *(make("gguf", "Q4_K_M"), make("gguf", "Q8_0"), make("mlx", "4bit"), make("mlx", "8bit")),
    *(make("onnx", "int4", {"tie_embeddings": True}), make("onnx", "int8")),
)
AT_FOUR: Final = PLANTED_INTO[::2]
# Faults that a toolchain has in everything that it makes, the unquantised too; one like the first is in wide use.
OF_TOOLCHAINS: Final = ("rope_base", "norm_epsilon", "tensor_scaled")
# Of the trained model; the others have these at 8 bits.
HONEST: Final = (
    *(make("gguf", name) for name in ("Q4_0", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16")),
    *(make("mlx", name) for name in ("4bit", "5bit", "6bit", "8bit", "bf16")),
    *(make("mlx", "4bit", {"group_size": size}) for size in (32, 128)),
    *(make("onnx", "int4", {"tie_embeddings": True, "block_size": size}) for size in (32, 64)),
    *(make("onnx", name) for name in ("int8", "fp32")),
)
AT_EIGHT: Final = {"gguf": make("gguf", "Q8_0"), "mlx": make("mlx", "8bit"), "onnx": make("onnx", "int8")}
OTHERS: Final = ("llama", "llama31", "qwen2", "qwen3", "gemma3", "phi3", "phi4", "mistral")
# Test models whose tokenizer a toolchain does not pass on: docs/models.md.
REFUSED: Final = {("qwen2", "gguf"), ("qwen3", "gguf"), ("phi3", "gguf"), ("phi4", "gguf"), ("qwen2", "onnx")}
TWELVE: Final = (
    *(make("gguf", name) for name in ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")),
    *(make("mlx", name) for name in ("4bit", "8bit", "mixed_4_6") if name in QUANTIZATIONS["mlx"]),
    *(make("onnx", name) for name in ("int4", "int8", "fp32")),
)
# Stages whose work is done once for a source, or that make artifacts.
_NOT_COUNTED: Final = ("reference_logits", "source_parity", "source_chunks")
_MAKING: Final = ("_convert", "_quantise", "_build", "_round", "_passes", "_imatrix")


class CountingExecutor:
    """Runs stages as `inner` does, and adds up the processor seconds of those that measure an artifact."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.seconds = 0.0

    async def run(self, job: StageJob, scratch: Path, log: BinaryIO, say: Say) -> dict[str, Any]:
        """See Executor. One at a time: what children used is known for all of them together only."""
        before = _children_seconds()
        try:
            return await self._inner.run(job, scratch, log, say)
        finally:
            if job.script not in _NOT_COUNTED and not job.script.endswith(_MAKING):
                self.seconds += _children_seconds() - before


def figure(name: str, value: float, unit: str, of: str = "") -> None:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "of": of, "host": HOST}), flush=True)


def told(what: str, answer: Answer) -> None:
    first = answer.words.splitlines()[0] if answer.words else "stored"
    print(f"{what}: {', '.join(sorted(answer.checks)) or 'no check'}: {first}", file=sys.stderr, flush=True)


def plants(only: list[str]) -> Iterator[tuple[Recipe, Fault, bool]]:
    """What to build, with what in it, and whether all that the toolchain makes has it."""
    for recipe in PLANTED_INTO:
        for fault in FAULTS:
            if recipe.runtime in fault.plant and (not only or fault.name in only):
                yield recipe, fault, False
                if fault.name in OF_TOOLCHAINS and recipe in AT_FOUR:
                    yield recipe, fault, True


async def planted(state: Path, only: list[str]) -> None:
    """Two formats at a time, since one build uses one processor."""
    wanted = list(plants(only))
    first = [one for one in wanted if one[0].runtime == "mlx"]
    rest = [one for one in wanted if one[0].runtime != "mlx"]
    done = await asyncio.gather(
        *(planted_in(Laboratory(state / f"planted-{number}"), part) for number, part in enumerate((first, rest)))
    )
    figure("compile.planted_faults_tried", len(wanted), "", f"{len(FAULTS)} kinds")
    figure("compile.planted_faults_missed", sum(done), "")


async def planted_in(laboratory: Laboratory, wanted: list[tuple[Recipe, Fault, bool]]) -> int:
    """How many of them were stored."""
    source, missed = inspect(models.folder() / "trained"), 0
    for recipe, fault, everywhere in wanted:
        answer = await laboratory.build(source, recipe, fault, everywhere=everywhere)
        told(f"planted {fault.name} in {'the toolchain of ' if everywhere else ''}{recipe}", answer)
        missed += not answer.refused
    return missed


async def honest(laboratory: Laboratory) -> None:
    wanted = [("trained", recipe) for recipe in HONEST]
    others = [(name, runtime) for name in OTHERS for runtime in AT_EIGHT]
    wanted += [(name, AT_EIGHT[runtime]) for name, runtime in others if (name, runtime) not in REFUSED]
    refused = 0
    for name, recipe in wanted:
        answer = await laboratory.build(inspect(models.folder() / name), recipe)
        told(f"honest {name} as {recipe}", answer)
        refused += answer.refused
    figure("compile.clean_builds_tried", len(wanted), "", f"{1 + len(OTHERS)} models")
    figure("compile.clean_builds_refused", refused, "")


async def cost(state: Path, demo: Source) -> None:
    counting: list[CountingExecutor] = []

    def counted(inner: Executor) -> CountingExecutor:
        counting.append(CountingExecutor(inner))
        return counting[-1]

    laboratory = Laboratory(state, counted)
    (executor,) = counting
    # So that what is learned once for the source and the toolchain is known already.
    for recipe in AT_EIGHT.values():
        await laboratory.build(demo, recipe)
    dearest, of = 0.0, ""
    for recipe in TWELVE:
        before = executor.seconds
        told(f"demo model as {recipe}", await laboratory.build(demo, recipe))
        spent = executor.seconds - before
        figure("compile.gate_cpu_s.of", spent, "s", str(recipe))
        if spent > dearest:
            dearest, of = spent, str(recipe)
    figure("compile.gate_cpu_s", dearest, "s", f"the dearest of {len(TWELVE)}: {of}")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def run(arguments: argparse.Namespace, state: Path) -> None:
    await planted(state, arguments.only)
    if not arguments.only:
        await honest(Laboratory(state / "honest"))
    if not (arguments.without_demo or arguments.only):
        await cost(state / "demo", inspect(ROOT / ".cache" / "demo" / "smollm2"))


def main() -> int:
    parser = argparse.ArgumentParser(description="faults that the gates find, honest builds that pass, what it costs")
    parser.add_argument("--state", type=Path, help="keep everything in this folder, and use what is there")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these kinds of faults, nothing else")
    parser.add_argument("--without-demo", action="store_true", help="leave out what the gate costs")
    arguments = parser.parse_args()
    try:
        if arguments.state:
            asyncio.run(run(arguments, arguments.state))
        else:
            with tempfile.TemporaryDirectory(prefix="edgewright-gates-") as state:
                asyncio.run(run(arguments, Path(state)))
    except BuildFailed as error:
        print(f"benchmark: a build failed where none should: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
