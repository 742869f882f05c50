"""What an engine's child needs on Linux, and so may have. Looks at the disk, changes nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from edgewright_agent.engines.catalogue import CHILDREN, Engine
from edgewright_agent.engines.interpreter import Interpreter
from edgewright_contract.engine import EngineSpec

_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/opt", "/nix/store")
_PSEUDO: Final = ("/proc", "/sys")
_SETTINGS: Final = (  # of libraries; no file with a secret is among them
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld-musl-x86_64.path",
    "/etc/ld-musl-aarch64.path",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/mime.types",
    "/etc/ssl/openssl.cnf",
    "/etc/OpenCL",
    "/etc/vulkan",
    "/etc/glvnd",
    "/etc/nv_tegra_release",
    "/etc/nvidia-container-runtime",
)
_NODES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_ACCELERATORS: Final = (
    "/dev/nvidia*",
    "/dev/nvmap",
    "/dev/nvhost*",
    "/dev/nvgpu*",
    "/dev/nvsciipc",
    "/dev/host1x*",
    "/dev/dri",
    "/dev/kfd",
    "/dev/accel",
    "/dev/dxg",
    "/dev/dma_heap",
    "/dev/adsprpc*",
    "/dev/fastrpc*",
    "/dev/mali*",
    "/dev/shm",  # noqa: S108 CUDA keeps what its processes share there
)
_LOADERS: Final = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-*.so.1")
_LIBRARY_VARIABLES: Final = ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "ADSP_LIBRARY_PATH", "OPENVINO_LIB_PATHS")
MARGIN_BYTES: Final = 1 << 30  # an interpreter, its libraries and the stacks of its threads


def memory_limit(need: int) -> int:
    """Bytes that an engine may hold whose release needs `need`; 0 when that is unknown. It stops what grows without
    end. What fits beside what runs was decided before, and closer."""
    return 2 * need + MARGIN_BYTES if need else 0


def devices(accelerator: str) -> tuple[Path, ...]:
    """The nodes of accelerators that are here; none for a CPU."""
    if accelerator == "cpu":
        return ()
    return tuple(Path(found) for pattern in _ACCELERATORS for found in sorted(glob.glob(pattern)))


def readable(
    engine: Engine, interpreter: Interpreter, spec: EngineSpec, environment: Mapping[str, str], state: Path | None
) -> tuple[str, ...]:
    """Files and folders that the child may read. Where the agent's state stands below one of them, its neighbours are
    named instead of the folder: the state is never among them, apart from the artifact."""
    named = [path for name in _LIBRARY_VARIABLES for path in environment.get(name, "").split(os.pathsep) if path]
    # Of an engine's own file the folder may be somebody's home: its modules are named one by one.
    modules = map(str, (CHILDREN, *engine.child.parent.glob("*.py")))
    wanted = [*_SYSTEM, *_SETTINGS, *map(str, interpreter.folders), *named, *modules]
    paths = (Path(path).resolve() for path in wanted if os.path.isabs(path))
    allowed = [str(part) for path in paths if path != Path("/") for part in around(path, state)]
    return tuple(dict.fromkeys([*allowed, *_PSEUDO, str(Path(spec.artifact).resolve())]))


def listed(engine: Engine, state: Path | None) -> tuple[str, ...]:
    """The folder of the engine's own file: to import a module beside it, an interpreter looks at the names there."""
    return tuple(str(folder) for folder in around(engine.child.parent.resolve(), state))


def executable(interpreter: Interpreter) -> tuple[str, ...]:
    """What the launcher may start: the child's interpreter, by way of the system's loader. The child may start nothing,
    but its own program anew."""
    loaders = [found for pattern in _LOADERS for found in glob.glob(pattern)]
    return (str(interpreter.program.resolve()), *loaders)


def around(folder: Path, kept_out: Path | None) -> Iterator[Path]:
    """`folder`; or all that is in it except the way to `kept_out`, when that is inside or is the folder itself."""
    if kept_out is None or (folder != kept_out and folder not in kept_out.parents):
        if kept_out is None or kept_out not in folder.parents:
            yield folder
        return
    if folder == kept_out:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        yield from around(entry, kept_out)


def nodes(accelerator: str) -> tuple[str, ...]:
    """The device nodes that the child may use."""
    return (*_NODES, *map(str, devices(accelerator)))
