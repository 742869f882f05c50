"""Whether an engine computes where its release says. Pure.

Every runtime falls back to the CPU in silence when a driver is missing. So what counts is what the runtime says of
itself after it loaded the model, not what it was asked for.
"""

from __future__ import annotations

from typing import Final

from edgewright_contract.engine import EngineInfo, EngineSpec

_MAX_ACCOUNT: Final = 100


def told(info: EngineInfo) -> str:
    """What computes, for a status: the plain kind first, then the runtime's own account of it.

    `cpu (llama.cpp: CPU_Mapped 99 MiB)`. Both are the engine's words; what the manifest wished is not in it.
    """
    kind, account = info.accelerator, " ".join(info.device.split())
    if account in ("", kind):
        return kind
    return f"{kind} ({account if len(account) <= _MAX_ACCOUNT else account[: _MAX_ACCOUNT - 1] + '…'})"


def fault(info: EngineInfo, spec: EngineSpec, accelerator: str) -> str:
    """Why `info` does not show that the engine runs on `accelerator`; empty when it does."""
    if info.accelerator != accelerator:
        return f"made for {accelerator}, but {info.engine} runs on {info.accelerator} ({info.device})"
    if accelerator == "cpu" or not info.layers:
        return ""
    wanted = spec.options.get("gpu_layers", info.layers)
    wanted = min(int(wanted), info.layers) if int(wanted) >= 0 else info.layers
    if info.layers_offloaded < wanted:
        return f"{info.engine} put {info.layers_offloaded} of {wanted} layers on {accelerator} ({info.device})"
    return ""
