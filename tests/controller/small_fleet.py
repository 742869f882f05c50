"""A small fleet for tests of the manifest and the plan: its text, and the world as somebody would have found it."""

from __future__ import annotations

from edgewright_controller.compile.source import ModelFacts
from edgewright_controller.manifest import Manifest, ManifestError, parse
from edgewright_controller.world import BuildFact, DeviceFact, InventoryFact, SourceFact

TEXT = """
[fleet]
name = "demo"

[models.smollm2]
source = "smollm2"

[profiles.jetson]
runtime = "gguf"
quantization = "Q4_K_M"
accelerator = "cuda"
memory = "8GB"
options = { context = 1024 }

[profiles.mac]
runtime = "mlx"
quantization = "4bit"
accelerator = "metal"
memory = "8GB"

[devices.jetson-01]
profile = "jetson"
labels = { site = "oslo" }

[devices.jetson-02]
profile = "jetson"

[devices.mac-01]
profile = "mac"

[groups.everyone]
model = "smollm2"
devices = ["jetson-01", "jetson-02", "mac-01"]
probes = ["speaks"]

[probes.speaks]
prompt = "Say hello."
"""

# The demo's model, as compile.source finds it.
SMOLLM2 = ModelFacts(
    architecture="LlamaForCausalLM",
    model_type="llama",
    parameters=134_515_008,
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    vocab=49_152,
    context=8192,
    dtype="bf16",
    bytes=269_060_552,
    inner=1536,
)
SOURCE = SourceFact(digest="5" * 64, bytes=269_060_552 + 3_524_731, model=SMOLLM2)
TOOLCHAINS = {"gguf": {"llama-cpp-python": "0.3.36"}, "mlx": {"mlx-lm": "0.32.2"}, "onnx": {"olive-ai": "0.13.0"}}
BIG = InventoryFact(
    memory_bytes=64 * 10**9,
    disk_free_bytes=10**12,
    runtimes=frozenset({"gguf", "mlx", "onnx"}),
    accelerators=frozenset({"cuda", "metal", "cpu"}),
)
ENROLLED = DeviceFact(inventory=BIG)


def edited(*edits: tuple[str, str]) -> str:
    """The fleet's text with each (old, new) replaced; every old must stand in it exactly once."""
    text = TEXT
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
        text = text.replace(old, new)
    return text


def manifest(*edits: tuple[str, str]) -> Manifest:
    """The edited fleet, which must be sound."""
    return parse(edited(*edits), file="fleet.toml")


def refusal(*edits: tuple[str, str]) -> str:
    """What the operator reads about the edited fleet, which must be refused; one line for each problem."""
    text = edited(*edits)
    try:
        parse(text, file="fleet.toml")
    except ManifestError as error:
        return str(error)
    raise AssertionError(f"was accepted:\n{text}")


def built(artifact: str, size_bytes: int = 100_000_000) -> BuildFact:
    """A finished build whose digest is made of one character."""
    return BuildFact(artifact * 64, size_bytes)
