"""Checkpoints made of other sources, by stages under the GGUF toolchain's interpreter: a GGUF dequantised, an adapter
merged. What is made is kept under a key that says of what and by which versions."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile import source, stage_bounds, toolchain
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.executor import Executor, StageJob
from edgewright_controller.compile.source import Source, SourceError
from edgewright_controller.compile.sources import adapter
from edgewright_controller.compile.sources.kept import Kept
from edgewright_controller.compile.stage_bounds import Bounds

# Raised when what is made of a GGUF, or of an adapter and its base, would have other bytes.
DEQUANTISING: Final = 1
MERGING: Final = 1
# The runtime whose toolchain has what makes checkpoints.
MAKER: Final = "gguf"
MAKE_S: Final = 6 * 3600.0
# A weight of a GGUF has two bits and more, one of a checkpoint sixteen.
_GGUF_GROWS: Final = 8

Say = Callable[[str, float, str], None]


class Making:
    """Makes checkpoints, each once."""

    def __init__(self, kept: Kept, executor: Executor, interpreters: Mapping[str, str], toolchains: Path) -> None:
        """`toolchains` is where versions of toolchains are kept."""
        self._kept, self._executor, self._toolchains = kept, executor, toolchains
        self._interpreter = interpreters[MAKER]

    async def dequantised_key(self, sha256: str) -> str:
        """The key of what is made of a GGUF file. Raises toolchain.ToolchainMissing."""
        versions = await self._versions(toolchain.DEQUANTISE)
        return key_of({"dequantised": DEQUANTISING, "file": sha256, "versions": dict(versions)})

    async def merged_key(self, base: str, change: str) -> str:
        """The key of what is made of a checkpoint and an adapter, by their digests. Raises ToolchainMissing."""
        versions = await self._versions(toolchain.MERGE)
        return key_of({"merged": MERGING, "base": base, "adapter": change, "versions": dict(versions)})

    async def dequantise(self, path: Path, sha256: str, say: Say) -> Source:
        """The checkpoint of a GGUF file with this digest. Raises SourceError, OSError, ToolchainMissing."""
        key = await self.dequantised_key(sha256)
        async with self._kept.alone(key):
            if (found := self._kept.source(key)) is not None:
                return found
            before = path.stat()
            self._kept.check_disk(before.st_size * _GGUF_GROWS)
            job = _job("gguf_dequantise", {"source": str(path.absolute())}, _dequantising_bounds(before.st_size))
            made = await self._made(key, job, lambda done, what: say(f"dequantise {path.name}", done, what))
            after = path.stat()
            if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
                raise SourceError(f"{path}: changed while it was read; apply again")
            return self._kept.put(key, made, origin=f"{path.name} sha256:{sha256}", requantised=True)

    async def merge(self, base: Source, change: Source, say: Say) -> Source:
        """The checkpoint with the adapter, which fits, merged in. Raises SourceError, OSError, ToolchainMissing."""
        assert base.facts is not None
        key = await self.merged_key(base.digest, change.digest)
        async with self._kept.alone(key):
            if (found := self._kept.source(key)) is not None:
                return found
            request = {
                "base": str(base.folder.absolute()),
                "adapter": str(change.folder.absolute()),
                "weights": [file.path for file in base.files if _is_weights(file.path)],
                "beside": [file.path for file in base.files if not _is_weights(file.path)],
                "dtype": base.facts.dtype,
            }
            job = _job("adapter_merge", request, stage_bounds.of("adapter_merge", base.facts))
            with self._kept.holding([base.folder.name, change.folder.name]):
                self._kept.check_disk(base.bytes)
                made = await self._made(key, job, lambda done, what: say(f"merge {change.folder.name}", done, what))
                await asyncio.to_thread(adapter.refuse_other_tensors, made, base)
            if not all(file.unchanged for file in (*base.files, *change.files)):
                raise SourceError("base or adapter changed while they were merged; apply again")
            origin = f"{base.origin or base.digest} + {change.origin or change.digest}"
            return self._kept.put(key, made, origin=origin, requantised=base.requantised)

    async def _made(self, key: str, job: StageJob, say: Callable[[float, str], None]) -> Source:
        """What the stage makes, looked at, in the half of this key; nothing stays of one that failed."""
        self._kept.drop_half(key)
        half = self._kept.half(key)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=self._kept.folder))
        request = {**job.request, "out": str(half.absolute())}
        try:
            with self._kept.holding([key]), self._kept.log(key) as log:
                await self._executor.run(
                    StageJob(job.script, job.runtime, request, job.bounds, job.threads), scratch, log, say
                )
            return await asyncio.to_thread(source.inspect, half)
        except StageFailed as error:
            self._kept.drop_half(key)
            raise SourceError("\n    ".join([error.reason, *error.last_lines])) from error
        except BaseException:
            self._kept.drop_half(key)
            raise
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))

    async def _versions(self, work: str) -> Mapping[str, str]:
        return await asyncio.to_thread(toolchain.versions, work, self._interpreter, self._toolchains)


def key_of(shaped_by: Mapping[str, object]) -> str:
    """A name for what everything in `shaped_by` makes."""
    return digest.of_bytes(canonical.encode(dict(shaped_by)))


def _job(script: str, request: Mapping[str, Any], bounds: Bounds) -> StageJob:
    return StageJob(script, MAKER, request, bounds, threads=1)


def _dequantising_bounds(gguf_bytes: int) -> Bounds:
    """Libraries, and the weights in float32 and once more as they are written."""
    expected = (900 << 20) + 12 * gguf_bytes
    return Bounds(expected, 2 * expected, MAKE_S)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") or name == source.INDEX
