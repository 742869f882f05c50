"""The environment of an engine's process: what it needs to run, and nothing that opens a door.

An allow-list, because a list of forbidden names is never complete: tokens of clouds and hubs live in the
environment of whoever started the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgewright_contract import engine as contract

_PASSED: Final = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_LIBRARY_PATH",
    "ADSP_LIBRARY_PATH",
    "OPENVINO_LIB_PATHS",
    "APPDATA",
    "COMSPEC",
    "LOCALAPPDATA",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_ARCHITECTURE",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "USERPROFILE",
    "WINDIR",
)  # fmt: skip  (by purpose: any system, accelerators, Windows)

_FIXED: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "LLAMA_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
}


def engine_environment(own: Mapping[str, str], secret: str, threads: int) -> dict[str, str]:
    """The child's whole environment, from the agent's own. `threads` bounds the numeric libraries too."""
    chosen = {name: own[name] for name in _PASSED if name in own}
    numeric = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**chosen, **_FIXED, **numeric, contract.SECRET_VARIABLE: secret}
