"""Whether a release fits a device: memory while it serves and while it replaces another, and disk. Pure, in bytes.

Memory is weights, the cache of keys and values, what a step of the prompt needs, and what the engine takes by itself.
The last two were measured with the demo model on a CPU, one thread (llama.cpp through xllamacpp, mlx-lm,
onnxruntime-genai); on an accelerator they are an assumption, on the safe side. A device measures again before it loads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from edgewright_controller.manifest import Profile
from edgewright_controller.world import InventoryFact

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts

# Resident before a model is loaded: the interpreter and the runtime's libraries. mlx-lm brings transformers along.
ENGINE_BYTES: Final = {"gguf": 32 << 20, "mlx": 420 << 20, "onnx": 32 << 20}
# Tokens of a prompt that are worked on at once; onnxruntime-genai takes the whole prompt.
STEP_TOKENS: Final = {"gguf": 512, "mlx": 2048}
ACTIVATIONS: Final = {
    "gguf": 50,
    "mlx": 50,
    "onnx": 20,
}  # values of 4 bytes per token of a step, in widths of the model
MARGIN: Final = 1.05


class What(Enum):
    """What there is too little of."""

    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True)
class Misfit:
    """A release that a device has no room for."""

    device: str
    what: What
    needed_bytes: int
    available_bytes: int
    message: str


@dataclass(frozen=True)
class Load:
    """What a release weighs on a device. `known` is false for an artifact that is not built yet."""

    memory_bytes: int
    artifact_bytes: int
    known: bool = True


def kv_bytes(model: ModelFacts, profile: Profile) -> int:
    """Bytes of the cache of keys and values when every request has filled its context."""
    options = profile.runtime_options
    tokens = int(options["context"]) * int(options.get("parallel", 1))
    return 2 * model.layers * model.kv_heads * model.head_dim * tokens * _value_bytes(profile)


def memory_bytes(profile: Profile, artifact_bytes: int, model: ModelFacts | None) -> int:
    """Bytes of memory to serve an artifact of this size with the profile's options.

    Without facts about the model (a prebuilt artifact whose source is not at hand) the cache is not counted.
    """
    weights = artifact_bytes
    if profile.runtime == "mlx" and profile.accelerator == "cpu":
        # Served in float32 there: a float model doubles, a quantised one has larger scales.
        weights = artifact_bytes * 2 if profile.quantization in ("bf16", "fp16") else round(artifact_bytes * 1.12)
    needed = ENGINE_BYTES[profile.runtime] + weights
    if model is not None:
        context = int(profile.runtime_options["context"])
        step = min(context, STEP_TOKENS.get(profile.runtime, context))
        # onnxruntime-genai keeps the logits of every token of the prompt, as float32.
        logits = model.vocab if profile.runtime == "onnx" else 0
        needed += kv_bytes(model, profile) + 4 * step * (model.hidden * ACTIVATIONS[profile.runtime] + logits)
    return round(needed * MARGIN)


def misfits(
    device: str, profile: Profile, *, granted_by: str, new: Load, old: Load | None, inventory: InventoryFact | None
) -> list[Misfit]:
    """What a device lacks to replace `old` (None: it serves nothing) by `new`, both versions there at the same time.

    The profile's numbers are the operator's promise, `granted_by` is what to call them. The device's own report
    counts too, once there is one.
    """
    found = []
    whole = _Shortage(device, granted_by, " for both versions during the swap" if old else "", new.known)
    total = new.memory_bytes + (old.memory_bytes if old else 0)
    if inventory is not None and inventory.memory_bytes < profile.memory_bytes:
        whole_memory, limit = replace(whole, owner="the device has"), inventory.memory_bytes
    else:
        whole_memory, limit = whole, profile.memory_bytes
    if total > limit:
        found.append(whole_memory.of(What.MEMORY, total, limit))
    on_disk = new.artifact_bytes + (old.artifact_bytes if old else 0)
    if profile.disk_bytes is not None and on_disk > profile.disk_bytes:
        found.append(whole.of(What.DISK, on_disk, profile.disk_bytes))
    elif inventory is not None and new.artifact_bytes > inventory.disk_free_bytes:
        # What it holds already is not free any more, so only the new version counts.
        free = replace(whole, owner="the device has free", purpose="")
        found.append(free.of(What.DISK, new.artifact_bytes, inventory.disk_free_bytes))
    return found


@dataclass(frozen=True)
class _Shortage:
    device: str
    owner: str
    purpose: str
    known: bool

    def of(self, what: What, needed: int, available: int) -> Misfit:
        about = "" if self.known else "about "
        message = (
            f"{self.device}: {what.value}: needs {about}{needed - available:,} bytes more:"
            f" {needed:,}{self.purpose}, {self.owner} {available:,}"
        )
        return Misfit(self.device, what, needed, available, message)


def _value_bytes(profile: Profile) -> int:
    """Bytes of one cached value: llama.cpp takes float16, the other two float32 where they compute in it."""
    if profile.runtime == "gguf":
        return 2
    if profile.accelerator == "cpu" or profile.quantization in ("fp32", "int8"):
        return 4
    return 2
