"""What Olive makes for ONNX, by precision and by the provider that runs the graph on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from edgewright_controller.compile import olive_passes, qualcomm
from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError, RuntimeRecipes

QUANTIZATIONS: Final = ("int4", "int8", "fp16", "fp32")

# Which execution provider the graph is made for, by the accelerator that a profile names, and what its maker calls it.
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {"cpu": "CPU", "cuda": "CUDA", "dml": "DirectML", "webgpu": "WebGPU", "qnn": "QNN", "openvino": "OpenVINO"}
)
# Calibration of activations: so many pieces of so many tokens. With fewer the ranges miss what a prompt brings, and the
# graph answers wrongly without any fault.
MIN_SAMPLES: Final = 16
MAX_SAMPLES: Final = 1024
MIN_LENGTH: Final = 64
MAX_LENGTH: Final = 4096


def of_accelerator(accelerator: str) -> dict[str, Option]:
    """The options that follow from a profile's accelerator. Raises RecipeError."""
    if accelerator not in PROVIDERS:
        raise RecipeError(
            "accelerator",
            f"ONNX for {accelerator} cannot be compiled here yet;"
            ' build it elsewhere and ship it with quantization = "prebuilt"',
        )
    return {"provider": accelerator}


def _unproven(_quantization: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What no check can see of such an artifact on a machine without the hardware, in words."""
    if options["provider"] == "cpu":
        return ()
    name = PROVIDERS[options["provider"]]
    if options["provider"] == "qnn":
        soc = qualcomm.called(options["soc"])
        return (
            f"the compiled graph, which runs on {soc} only: the graph that it was compiled from can be measured, on"
            " onnxruntime's CPU provider",
        )
    if options["provider"] == "openvino":
        return (
            "onnxruntime's OpenVINO provider, and Intel's GPUs and NPUs: the graph within is measured by OpenVINO"
            " itself, on a CPU",
        )
    return (f"{name}'s own kernels and their speed: the graph can be measured on onnxruntime's CPU provider only",)


def _check_together(quantization: str, options: Mapping[str, Any]) -> None:
    if quantization == "fp16" and options["provider"] == "cpu":
        raise RecipeError("quantization", "fp16 needs an accelerator; on a cpu use fp32, int8 or int4")
    if options["provider"] == "qnn":
        _check_qnn(quantization, options)
        return
    for name in ("soc", "htp_arch"):
        if options.get(name):
            raise RecipeError(f"recipe.{name}", 'goes with accelerator = "qnn", and only with it')
    if options["provider"] == "openvino" and options["passes"]:
        raise RecipeError("recipe.passes", "cannot follow what is exported for openvino; take them away")
    olive_passes.check_together("recipe.passes", quantization, options["passes"])
    for name in ("calibration_samples", "calibration_length"):
        changed = options.get(name, RECIPES.options[name].default) != RECIPES.options[name].default
        if changed and not _calibrated(quantization, options):
            reading = ", ".join(sorted(olive_passes.READING))
            words = f'only a build for accelerator = "qnn" is calibrated, or one by a pass that reads data: {reading}'
            raise RecipeError(f"recipe.{name}", words)


def check_rows(block: int, rows: Mapping[str, int]) -> None:
    """Raise RecipeError when a block does not divide a length of rows, for OpenVINO: its compressor ends with an error.
    `rows`: what has rows of a length, with the length."""
    short = {what: length for what, length in rows.items() if length % block}
    if short:
        listed = ", ".join(f"{length} ({what})" for what, length in short.items())
        fitting = [size for size in (128, 64, 32, 16) if not any(length % size for length in rows.values())]
        advice = f"take block_size = {fitting[0]}" if fitting else 'take quantization = "int8"'
        raise RecipeError("recipe.block_size", f"{block} does not divide rows of {listed}; {advice}")


def _check_qnn(quantization: str, options: Mapping[str, Any]) -> None:
    if quantization != "int4":
        raise RecipeError("quantization", f"{quantization} cannot be made for qnn; it takes int4")
    qualcomm.check(options["soc"], options["htp_arch"])
    if options["passes"]:
        raise RecipeError("recipe.passes", "cannot follow what is compiled for qnn; take them away")
    if options["symmetric"] or not options["tie_embeddings"]:
        name = "symmetric" if options["symmetric"] else "tie_embeddings"
        raise RecipeError(f"recipe.{name}", "is not a choice for qnn; take it away")


def _calibrated(_quantization: str, options: Mapping[str, Any]) -> bool:
    return bool(options["provider"] == "qnn") or olive_passes.reads_text(options["passes"])


def _moves(options: Mapping[str, Any]) -> bool:
    # By GPTQ for an NPU; what a pass of the operator's does, nobody knows here.
    return options["provider"] == "qnn" or bool(options["passes"])


def _toolchain(options: Mapping[str, Any]) -> str:
    return str(options["provider"]) if options.get("provider") in ("openvino", "qnn") else ""


def _between(least: int, most: int, what: str) -> Callable[[str, Any], Option]:
    def check(key: str, value: Any) -> Option:
        if type(value) is not int or not least <= value <= most:
            raise RecipeError(key, f"{value!r} is no number of {what} from {least} to {most}")
        return value

    return check


RECIPES: Final = RuntimeRecipes(
    QUANTIZATIONS,
    MappingProxyType(
        {
            # docs/decisions/0022 has what other defaults cost.
            "block_size": Choice(32, (16, 32, 64, 128, 256), ("int4",)),
            "symmetric": Choice(False, (False, True), ("int4",)),
            # The embedding in int4 too, its table the output layer's as well: half the size of a small model with a
            # large vocabulary.
            "tie_embeddings": Choice(True, (False, True), ("int4",)),
            "provider": Choice("cpu", tuple(PROVIDERS), QUANTIZATIONS),
            "passes": Choice([], (), QUANTIZATIONS, olive_passes.spelling),
            "soc": Choice(None, (), ("int4",), qualcomm.soc),
            "htp_arch": Choice(None, (), ("int4",), qualcomm.htp_arch),
            "calibration_samples": Choice(32, (), ("int4",), _between(MIN_SAMPLES, MAX_SAMPLES, "pieces of text")),
            "calibration_length": Choice(128, (), ("int4",), _between(MIN_LENGTH, MAX_LENGTH, "tokens")),
        }
    ),
    _check_together,
    calibrated=_calibrated,
    unproven=_unproven,
    toolchain=_toolchain,
    moves=_moves,
)
