"""What a release needs of a device's memory, part by part. Pure, in bytes.

Each part is counted as the engine accounts for it; benchmarks/compile_fit.py holds the sum against the peak of real
engines. What is counted is what is resident: mapped weights too, since each token reads all of them.

llama.cpp (xllamacpp): its log gives each buffer, and these formulas give its numbers. The graph of a step holds three
rows of the inner width and five of the model's for each token, and the attention's mask in float16. On a CPU it repacks
some types into a second buffer beside the mapped file. mlx-lm and onnxruntime-genai keep no such account: mlx-lm is
taken to need the same for its smaller steps, onnxruntime-genai was fitted to measured peaks. On an accelerator all of
that is assumed to be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgewright_controller import artifact_size
from edgewright_controller.compile.recipe import recipe_of
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.manifest import Profile

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts

# Resident before a model is loaded: the interpreter and the runtime's libraries. mlx-lm brings transformers along.
ENGINE_BYTES: Final = {"gguf": 58_000_000, "mlx": 132_000_000, "onnx": 32 << 20}
# Tables of the vocabulary, each token.
_TOKEN_BYTES: Final = {"gguf": 155, "mlx": 300, "onnx": 0}
# Tokens of a prompt that are worked on at once; onnxruntime-genai takes the whole prompt.
_STEP_TOKENS: Final = {"gguf": 512, "mlx": 128}
_ONNX_ACTIVATIONS: Final = 20  # values of 4 bytes per token of a step, in widths of the model
# What no part accounts for.
_MARGIN: Final = {"gguf": 1.01, "mlx": 1.03, "onnx": 1.05}
# Types that llama.cpp copies into another arrangement for a CPU's vector instructions.
_REPACKED: Final = ("Q4_0", "Q4_K", "IQ4_NL")
# Families whose windowed layers llama.cpp gives a cache of the window alone; the others keep the whole context.
_WINDOWED_GGUF: Final = ("gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gpt_oss", "cohere2")
_CELLS: Final = 256  # the cache's length is a multiple of this


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for. `second` are weights that stand in memory once more in another form."""

    engine: int
    weights: int
    second: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        """All together."""
        return self.engine + self.weights + self.second + self.cache + self.compute


def predict(
    profile: Profile, artifact_bytes: int, model: ModelFacts | None, types: Mapping[str, int] | None = None
) -> Memory:
    """What serving an artifact of this size with the profile's options takes.

    Without facts about the model (a prebuilt artifact whose source is not at hand) cache and compute are 0. `types` is
    how many weights of each type the artifact was found to have, None while it is predicted from the recipe.
    """
    engine = ENGINE_BYTES[profile.runtime]
    weights, second = artifact_bytes, 0
    if profile.runtime == "mlx" and profile.accelerator == "cpu":
        # Served in float32 there: a float model doubles, a quantised one has larger scales.
        weights = artifact_bytes * 2 if profile.quantization in ("bf16", "fp16") else round(artifact_bytes * 1.12)
    if model is None:
        return _with_margin(profile.runtime, Memory(engine, weights, second, 0, 0))
    engine += _TOKEN_BYTES[profile.runtime] * model.vocab
    if profile.runtime == "gguf":
        second = _repacked_bytes(profile, model, types) if profile.accelerator == "cpu" else 0
    return _with_margin(
        profile.runtime, Memory(engine, weights, second, cache_bytes(model, profile), _compute_bytes(model, profile))
    )


def cache_bytes(model: ModelFacts, profile: Profile) -> int:
    """Bytes of the cache of keys and values when every request has filled its context."""
    options = profile.runtime_options
    context, requests = int(options["context"]), int(options.get("parallel", 1))
    windowed = _windowed_layers(model, profile.runtime)
    tokens = context * (model.layers - windowed)
    if windowed:
        # llama.cpp keeps the tokens of a step besides the window.
        step = _STEP_TOKENS["gguf"] if profile.runtime == "gguf" else 0
        seen = -(-(model.window + step) // _CELLS) * _CELLS
        tokens += min(context, seen) * windowed
    return 2 * tokens * model.kv_heads * model.head_dim * requests * _value_bytes(profile)


def _windowed_layers(model: ModelFacts, runtime: str) -> int:
    if not model.window or runtime == "onnx":
        return 0
    if runtime == "gguf" and model.model_type not in _WINDOWED_GGUF:
        return 0
    return model.windowed_layers


def _compute_bytes(model: ModelFacts, profile: Profile) -> int:
    """What a step of the prompt needs besides weights and cache."""
    options = profile.runtime_options
    context, requests = int(options["context"]), int(options.get("parallel", 1))
    step = min(context, _STEP_TOKENS.get(profile.runtime, context))
    if profile.runtime == "onnx":
        # onnxruntime-genai keeps the logits of every token of the prompt, as float32.
        return 4 * step * (model.hidden * _ONNX_ACTIVATIONS + model.vocab)
    mask = 2 * context * requests if profile.runtime == "gguf" else 0
    return step * (4 * (3 * (model.inner or 4 * model.hidden) + 5 * model.hidden) + mask) + 4 * model.vocab * requests


def _repacked_bytes(profile: Profile, model: ModelFacts, types: Mapping[str, int] | None) -> int:
    if types is None:
        try:
            recipe = recipe_of(profile)
        except RecipeError:
            return 0
        if recipe.prebuilt:
            return 0
        types = artifact_size.gguf_types(recipe, model)
    return round(sum(count * artifact_size.GGUF_BITS[kind] for kind, count in types.items() if kind in _REPACKED) / 8)


def _value_bytes(profile: Profile) -> int:
    """Bytes of one cached value: llama.cpp takes float16, the other two float32 where they compute in it."""
    if profile.runtime == "gguf":
        return 2
    if profile.accelerator == "cpu" or profile.quantization in ("fp32", "int8"):
        return 4
    return 2


def _with_margin(runtime: str, memory: Memory) -> Memory:
    margin = round(memory.total * (_MARGIN[runtime] - 1))
    return Memory(memory.engine + margin, memory.weights, memory.second, memory.cache, memory.compute)
