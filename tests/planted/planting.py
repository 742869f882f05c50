"""Builds with a fault in them: the real builder, whose executor plants the fault where a stage has done its work."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from edgewright_controller.compile.child import Say
from edgewright_controller.compile.executor import Executor, StageJob
from tests.planted.faults import Fault

# The stage that writes a quantised artifact, and where its request has what it is made from.
_LAST: Final[Mapping[str, str]] = {"gguf_quantise": "source", "mlx_convert": "source", "onnx_round": "parent"}
# The stages of which everything comes that is built. A GGUF is converted before, and quantised also to float32.
_OF_TOOLCHAINS: Final = {"gguf": ("gguf_quantise",), "mlx": ("mlx_convert",), "onnx": ("onnx_build",)}


class PlantingExecutor:
    """Runs stages as `inner` does. While `fault` is set, each artifact gets it; what a check builds for itself, such as
    the unquantised float32 model, only when the fault is `everywhere`, as one of a toolchain is. `planted` counts."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.fault: Fault | None = None
        self.everywhere = False
        self.planted = 0

    async def run(self, job: StageJob, scratch: Path, log: BinaryIO, say: Say) -> dict[str, Any]:
        """See Executor."""
        fault = self.fault
        if fault is not None and self.everywhere and job.script in _OF_TOOLCHAINS[job.runtime]:
            result = await self._inner.run(job, scratch, log, say)
            self.planted += 1
            fault.plant[job.runtime](_folder(Path(job.request["out"])))
            return result
        if fault is None or self.everywhere or job.script not in _LAST or not _is_artifact(job, scratch):
            return await self._inner.run(job, scratch, log, say)
        self.planted += 1
        into = fault.into.get(job.runtime)
        if into is None:
            result = await self._inner.run(job, scratch, log, say)
            fault.plant[job.runtime](_folder(Path(job.request["out"])))
            return result
        parent = Path(job.request[_LAST[job.script]])
        changed = scratch / "planted"
        if into == "checkpoint" and job.runtime == "gguf":
            checkpoint = scratch / "checkpoint"
            # Of what the build had staged: links to the honest source.
            shutil.copytree(scratch / "source", checkpoint)
            fault.plant[job.runtime](checkpoint)
            changed.mkdir()
            parent = changed / "model.gguf"
            request = {"source": str(checkpoint), "out": str(parent), "type": "bf16", "name": "planted"}
            await self._inner.run(replace(job, script="gguf_convert", request=request), scratch, log, say)
        elif parent.is_file():
            changed.mkdir()
            parent = Path(shutil.copyfile(parent, changed / "model.gguf"))
            fault.plant[job.runtime](changed)
        else:
            parent = Path(shutil.copytree(parent, changed))
            fault.plant[job.runtime](parent)
        return await self._inner.run(
            replace(job, request={**job.request, _LAST[job.script]: str(parent)}), scratch, log, say
        )


def _is_artifact(job: StageJob, scratch: Path) -> bool:
    # A GGUF is made beside the artifact's folder, since it may still be split.
    return _folder(Path(job.request["out"])) in (scratch / "artifact", scratch)


def _folder(out: Path) -> Path:
    return out.parent if out.suffix == ".gguf" else out
