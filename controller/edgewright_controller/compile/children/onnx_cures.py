"""The cure of faults between transformers 5 and onnxruntime-genai's builder.

The builder takes `rope_theta`, `partial_rotary_factor` and Gemma 3's `rope_local_base_freq` from a config's top level,
where transformers 4 had them. transformers 5 keeps them in `rope_parameters`, and drops them elsewhere. So a head that
is rotated in part is rotated as a whole, and a Gemma 3 cannot be built at all. `cure` says them where they are read.

transformers 5 also loads weights in the type that they are kept in. The builder adds 1 to Gemma's norms, and that in
bfloat16 rounds them; `cure` gives it norms in float32.
"""

from __future__ import annotations

from typing import Any

from stage import StageError

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
# The builder's own, not to be had from a config.
GEMMA3_PATTERN = 6


def cure() -> None:
    """From now on the builder's models find in their config what they read."""
    from onnxruntime_genai.models.builder import Model

    make = Model.__init__

    def cured(self: Any, config: Any, *rest: Any) -> None:
        say_again(config)
        make(self, config, *rest)

    Model.__init__ = cured
    load = Model.load_weights

    def loaded(self: Any, path: str) -> Any:
        import torch

        model = load(self, path)
        if self.layernorm_attrs["add_offset"] and isinstance(model, torch.nn.Module):
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.data = parameter.data.float()
        return model

    Model.load_weights = loaded


def say_again(config: Any) -> None:
    """Write `rope_parameters` of transformers 5 where transformers 4 had them. Raises StageError."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict):
        return
    if not any(isinstance(value, dict) for value in rope.values()):
        for key in ("rope_theta", "partial_rotary_factor"):
            if key in rope and not hasattr(config, key):
                setattr(config, key, rope[key])
        return
    if not rope.keys() <= {_GLOBAL, _LOCAL} or not str(config.model_type).startswith("gemma3"):
        raise StageError("config.json: rope_parameters differ between kinds of layers; the builder would not read them")
    kinds = [_LOCAL if (i + 1) % GEMMA3_PATTERN else _GLOBAL for i in range(config.num_hidden_layers)]
    if config.layer_types != kinds:
        raise StageError(f"config.json: layer_types: for the builder each {GEMMA3_PATTERN}th layer is global, no other")
    config.rope_theta = rope[_GLOBAL]["rope_theta"]
    config.rope_local_base_freq = rope[_LOCAL]["rope_theta"]
    if rope[_GLOBAL].get("rope_type", "default") == rope[_LOCAL].get("rope_type", "default") == "default":
        config.rope_parameters = None
        return
    # One table of scaling for all layers is all that the builder knows.
    raise StageError("config.json: rope_parameters: the builder would scale a Gemma 3's local layers, too")
