"""Making a build's report card: the artifact and its unquantised parent, served side by side by a device's engine.

A card never decides about an artifact, which the gate has let pass. What cannot be measured here, for want of an
engine, of memory or of the accelerator, stands on the card with the reason.

The parent's figures are kept, for as long as source, engine, host and questions are the same: it is measured with the
first artifact of its runtime and not again, unless something else had a part of the processor then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import psutil

from edgewright_contract import __version__, canonical, digest, durable
from edgewright_controller.compile import engine_child, engine_timing, engines_here
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.engine_child import EngineChild, EngineFailed
from edgewright_controller.compile.engines_here import Engine, EngineMissing
from edgewright_controller.compile.quiet import Quiet
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.performance import Performance, PerformanceError
from edgewright_controller.quality.report_card import Host, Origin, ReportCard

# One, wherever it is measured: so that cards of different hosts can be compared, and little else disturbs.
THREADS: Final = 1
READY_S: Final = 900.0
# Of the model's bytes, what serving it takes beside them.
MEMORY_FACTOR: Final = 1.3
MEMORY_BYTES: Final = 512 << 20
MAX_KEPT_BYTES: Final = 64 << 10
# Accelerators of recipes whose artifacts run on this host's processor as well.
_RUN_HERE: Final = ("", "cpu")

Parent = Callable[[], AbstractAsyncContextManager[Path]]
"""Makes the unquantised model in the artifact's runtime, or finds it, as a folder that an engine serves."""


@dataclass(frozen=True)
class Subject:
    """What the card is of. `artifact` is the folder of its files, `bundle` its digest. `parent` is None where the
    artifact is unquantised itself, or where there is none, and `no_parent` then says which."""

    key: str
    recipe: Recipe
    origin: Origin
    toolchain: Mapping[str, str]
    artifact: Path
    bundle: str
    size_bytes: int
    measures: Measures | None
    parent: Parent | None
    no_parent: str = ""


class Carding:
    """Makes cards, one at a time. `interpreters` has a Python for each runtime; parents' figures are kept in `kept`."""

    def __init__(self, kept: Path, interpreters: Mapping[str, str], quiet: Quiet) -> None:
        durable.make_folder(kept)
        self._kept, self._interpreters, self._quiet = kept, dict(interpreters), quiet

    async def card(self, subject: Subject, scratch: Path, log: BinaryIO) -> ReportCard:
        """The card. The engines' words go to `log`, their temporary files to `scratch`. When cancelled, the engines are
        gone before the cancellation goes on."""
        own: Performance | None = None
        parent: Performance | None = None
        why_not = why_no_parent = ""
        try:
            own, parent, why_no_parent = await self._measured(subject, scratch, log)
        except (EngineMissing, EngineFailed, StageFailed, PerformanceError, _NotHere, OSError) as error:
            why_not = str(error)
        return ReportCard(
            artifact=subject.bundle,
            build_key=subject.key,
            runtime=subject.recipe.runtime,
            quantization=subject.recipe.quantization,
            recipe=subject.recipe.to_json(),
            size_bytes=subject.size_bytes,
            origin=subject.origin,
            toolchain=subject.toolchain,
            host=host(),
            measures=subject.measures,
            performance=own,
            unmeasured=why_not,
            parent=parent,
            parent_unmeasured=why_no_parent or why_not,
            edgewright=__version__,
        )

    async def _measured(
        self, subject: Subject, scratch: Path, log: BinaryIO
    ) -> tuple[Performance, Performance | None, str]:
        """The artifact's figures, the parent's, and why there are none of it."""
        runtime = subject.recipe.runtime
        provider = str(subject.recipe.options.get("provider", ""))
        if provider not in _RUN_HERE:
            raise _NotHere(f"made for {provider}, which is not measured on this host")
        interpreter = self._interpreters[runtime]
        engine, version = await asyncio.to_thread(engines_here.find, runtime, interpreter)
        place = self._place(subject, engine, version)
        known = _read(place)
        async with AsyncExitStack() as stack:
            folder, why_not = None, subject.no_parent
            if known is None and subject.parent is not None:
                try:
                    folder = await stack.enter_async_context(subject.parent())
                except (StageFailed, OSError) as error:
                    why_not = f"the unquantised model could not be made: {error}"
            alone = await stack.enter_async_context(self._quiet.alone())
            _check_memory("the artifact", _bytes_in(subject.artifact))
            if folder is not None:
                try:
                    _check_memory("both", _bytes_in(subject.artifact) + _bytes_in(folder))
                except _NotHere as error:
                    folder, why_not = None, f"the unquantised model was not served beside it: {error}"

            async def serve(what: Path) -> EngineChild:
                spec = engine_child.spec_of(runtime, what, threads=THREADS, context=engine_timing.CONTEXT)
                running = engine_child.started(engine, interpreter, spec, scratch, log, deadline_s=READY_S)
                return await stack.enter_async_context(running)

            async def serve_parent(what: Path) -> EngineChild | str:
                try:
                    return await serve(what)
                except EngineFailed as error:
                    return f"unquantised: {error}"

            if folder is None:
                (own,) = await engine_timing.timed([await serve(subject.artifact)], THREADS, alone=alone)
                return own, known, "" if known else why_not
            served, beside = await _both(serve(subject.artifact), serve_parent(folder))
            if isinstance(beside, str):
                (own,) = await engine_timing.timed([served], THREADS, alone=alone)
                return own, None, beside
            own, parent = await engine_timing.timed([served, beside], THREADS, alone=alone)
            if not parent.disturbed:
                durable.write(place, json.dumps(parent.to_json()).encode())
            return own, parent, ""

    def _place(self, subject: Subject, engine: Engine, version: str) -> Path:
        """Where the figures of the subject's parent are kept: named by all that shapes them."""
        shaped_by = {
            "questions": engine_timing.QUESTIONS,
            "source": subject.origin.digest,
            "runtime": subject.recipe.runtime,
            "engine": [engine.name, version],
            "toolchain": dict(subject.toolchain),
            "threads": THREADS,
            "host": [*asdict(host()).values(), platform.node()],
        }
        return self._kept / f"{digest.of_bytes(canonical.encode(shaped_by))}.json"


class _NotHere(Exception):
    """This host cannot measure it."""


async def _both(
    one: Coroutine[Any, Any, EngineChild], other: Coroutine[Any, Any, EngineChild | str]
) -> tuple[EngineChild, EngineChild | str]:
    """Both loaded at the same time. When one fails, the other has come to its end before that is raised."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


def host() -> Host:
    """This machine."""
    return Host(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
    )


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_memory(what: str, model_bytes: int) -> None:
    needed = int(MEMORY_FACTOR * model_bytes) + MEMORY_BYTES
    free = psutil.virtual_memory().available
    if free < needed:
        raise _NotHere(f"{what} would need about {needed:,} bytes of memory to be served, {free:,} are free")


def _read(place: Path) -> Performance | None:
    try:
        if place.stat().st_size > MAX_KEPT_BYTES:
            return None
        return Performance.from_json(json.loads(place.read_bytes()))
    except (OSError, ValueError):
        return None  # what cannot be read is measured again
