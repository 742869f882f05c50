"""Profiles: a kind of hardware and the recipe for it. One class for each runtime, so that what a runtime does
not know is refused instead of ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from edgewright_contract import names
from edgewright_controller.manifest.quality import Quality
from edgewright_controller.manifest.quantities import Bytes, LocalPath
from edgewright_controller.manifest.table import Table
from edgewright_controller.quality.limits import AUTO_KL, NO_OVERRIDES, Overrides

ID_KEY_PATTERN: Final = f"^{names.ID_PATTERN}$"
Id = Annotated[str, Field(pattern=ID_KEY_PATTERN)]
LabelKey = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Labels = dict[LabelKey, Annotated[str, Field(max_length=128)]]
RuntimeOption = str | int | bool

PREBUILT: Final = "prebuilt"
AUTO: Final = "auto"


class Match(Table):
    """Chooses devices by their labels: { ring = "early" }, or at length { labels = { ring = "early" } }."""

    labels: Annotated[Labels, Field(min_length=1)]
    """A device is chosen when it has every one of these labels with this value."""

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: Any) -> Any:
        # No label is a table, so a table in it tells the long form.
        short = isinstance(value, dict) and value and not any(isinstance(one, dict) for one in value.values())
        return {"labels": value} if short else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        at_length = handler(core)
        return {"description": at_length.pop("description"), "anyOf": [at_length["properties"]["labels"], at_length]}

    def chooses(self, labels: Mapping[str, str]) -> bool:
        """Whether a device with these labels is meant."""
        return all(labels.get(key) == value for key, value in self.labels.items())

    @property
    def words(self) -> str:
        """`ring=early, site=oslo`, for a person."""
        return ", ".join(f"{name}={value}" for name, value in sorted(self.labels.items()))

    def __hash__(self) -> int:
        # A profile is a value that may stand in a set; a dict by itself may not.
        return hash(frozenset(self.labels.items()))


GgufQuantization = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S",
    "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "auto", "prebuilt",
]  # fmt: skip
GgufType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K",
    "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0",
]  # fmt: skip
CacheType = Literal["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
MlxQuantization = Literal[
    "2bit", "3bit", "4bit", "5bit", "6bit", "8bit", "mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6", "bf16", "fp16",
    "fp32", "auto", "prebuilt",
]  # fmt: skip
OnnxQuantization = Literal["int4", "int8", "fp16", "fp32", "auto", "prebuilt"]


class _Recipe(Table):
    """What a toolchain may be told besides the precision."""

    def __hash__(self) -> int:
        # A profile is a value that may stand in a set; a table of options by itself may not. Not sorted: the order of
        # a table may matter to the toolchain.
        return hash(json.dumps(self.model_dump(), separators=(",", ":")))


class GgufRecipe(_Recipe):
    """What llama.cpp's quantiser may be told besides the type."""

    pure: bool = False
    """Give every tensor the same type, without llama.cpp's mixture."""
    imatrix: bool = False
    """Weigh each weight by what it is multiplied with in the calibration text (an importance matrix, measured here):
    a closer artifact of the same size. Recipes below 3 bits always do."""
    overrides: Annotated[dict[Pattern, GgufType], Field(max_length=64)] = Field(default_factory=dict)
    """Other types for some tensors: { "ffn_down" = "Q6_K", "blk\\.[01]\\." = "Q8_0" }. A regular expression that is
    searched for in llama.cpp's names; where several fit, the first decides."""
    output_tensor_type: GgufType | None = None
    """The type of the output layer. Without it, llama.cpp's choice."""
    token_embedding_type: GgufType | None = None
    """The type of the embedding. Without it, llama.cpp's choice."""
    split: Bytes | None = None
    """Make files of at most so many bytes each, such as "2GB", instead of one."""


class MlxRecipe(_Recipe):
    """What mlx-lm's converter may be told besides the bits."""

    group_size: Literal[16, 32, 64, 128] = 64
    """Weights that share one scale. It must divide the model's rows."""
    mode: Literal["affine", "mxfp4", "nvfp4", "mxfp8"] = "affine"
    """How a group is coded. mxfp4 and mxfp8 need group_size = 32, nvfp4 needs 16; mxfp8 needs 8bit, the others 4bit."""
    learned: Literal["awq", "dwq", "gptq", "dynamic"] | None = None
    """Let mlx-lm learn from the calibration text how to round: better for the same size, and it takes long. dwq needs
    the extra `train` of mlx-lm."""


class OnnxRecipe(_Recipe):
    """What Olive may be told besides the precision."""

    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share one scale; int4 only."""
    symmetric: bool = False
    """Levels equally far below and above zero, without a zero point for each block; int4 only."""
    tie_embeddings: bool = True
    """Quantise the embedding too and share it with the output layer where the source does: a much smaller file,
    slightly less exact."""
    passes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further passes of Olive, in order: each under the name of its type, with its options. A pass that says `type` may
    have any name. Those that work on the checkpoint (Gptq, Rtn, KQuant and others) come first, the rest run over the
    finished graph; those that read data have the model's calibration text."""
    soc: int | str | None = None
    """With accelerator = "qnn": the system on a chip, "SC8380XP", "SM8650" or its number in the QNN SDK."""
    htp_arch: int | str | None = None
    """With accelerator = "qnn": the version of its Hexagon processor, such as "v73"; not needed for a SoC known by
    name."""
    calibration_samples: int = 32
    """With accelerator = "qnn", or a pass that reads data: pieces of the model's calibration text, 16 to 1024."""
    calibration_length: int = 128
    """Tokens of each piece, 64 to 4096."""


class _Options(Table):
    context: Annotated[int, Field(ge=64, le=1 << 20)] = 2048
    """Tokens of prompt and answer together, for one request."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads; without it the engine's own choice."""


class GgufOptions(_Options):
    """How llama.cpp serves the model."""

    parallel: Annotated[int, Field(ge=1, le=256)] = 1
    """Requests answered at the same time. Each has its own context."""
    gpu_layers: Annotated[int, Field(ge=-1, le=10_000)] | None = None
    """Layers on the accelerator, -1 for all; without it all."""
    flash_attention: bool | None = None
    """Attention in blocks, which takes less memory; without it llama.cpp decides."""
    cache_type_k: CacheType | None = None
    """The type of the cache of keys; without it f16."""
    cache_type_v: CacheType | None = None
    """The type of the cache of values; without it f16. A quantised one needs flash_attention = true."""
    batch_size: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    """Tokens of prompts that are taken in at once; without it 2048."""
    ubatch_size: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    """Tokens that are computed in one step, at most batch_size; without it 512."""
    mmap: bool | None = None
    """Map the weights from the disk instead of reading them; without it true."""
    mlock: bool | None = None
    """Keep the weights from being swapped out; without it false."""
    main_gpu: Annotated[int, Field(ge=0, le=127)] | None = None
    """The GPU that holds what is not split; without it the first."""
    split_mode: Literal["none", "layer", "row"] | None = None
    """How several GPUs share the model; without it by layers."""
    tensor_split: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(,[0-9]+(\.[0-9]+)?){0,15}$")] | None = None
    """The share of each GPU, such as "3,1"; without it by their free memory."""

    @model_validator(mode="after")
    def _go_together(self) -> GgufOptions:
        if self.cache_type_v not in (None, "f16", "bf16") and self.flash_attention is not True:
            raise _contradiction(f'cache_type_v = "{self.cache_type_v}" needs flash_attention = true')
        if self.ubatch_size is not None and self.ubatch_size > (self.batch_size or 2048):
            raise _contradiction("ubatch_size is more than batch_size")
        return self


class MlxOptions(_Options):
    """How mlx-lm serves the model."""

    parallel: Annotated[int, Field(ge=1, le=256)] = 1
    """Requests answered at the same time. Each has its own context."""


class OnnxOptions(_Options):
    """How onnxruntime-genai serves the model: one request at a time."""


class _Profile(Table):
    """What every profile has."""

    memory_bytes: Bytes = Field(alias="memory")
    """Memory of such a device that the model and its engine may use, old and new version together during a swap."""
    disk_bytes: Bytes | None = Field(default=None, alias="disk")
    """Disk of such a device that artifacts may use, all versions together. Without it, what the device has free."""
    prebuilt: LocalPath | None = None
    """With quantization = "prebuilt": the folder or file to ship as it is, relative to the manifest."""
    match: Match | None = None
    """Devices that get this profile when neither they nor their group name one."""
    quality: Quality | None = None
    """Limits of quality for what is built, other than the usual ones."""

    quantization: str
    recipe: _Recipe
    options: _Options

    @model_validator(mode="after")
    def _prebuilt_is_whole(self) -> _Profile:
        if self.is_prebuilt and self.prebuilt is None:
            raise _contradiction('quantization is "prebuilt", so `prebuilt` must name the folder or file')
        if not self.is_prebuilt and self.prebuilt is not None:
            raise _contradiction('`prebuilt` is named, so quantization must be "prebuilt"')
        if self.is_prebuilt and self.quality is not None:
            raise _contradiction("a prebuilt artifact has no source to be measured against; take `quality` away")
        return self

    @property
    def is_prebuilt(self) -> bool:
        """Whether the artifact was made elsewhere."""
        return self.quantization == PREBUILT

    @property
    def is_auto(self) -> bool:
        """Whether the recipe is to be found by trying."""
        return self.quantization == AUTO

    @property
    def overrides(self) -> Overrides:
        """What this profile says of the gate's limits."""
        said = self.quality.overrides if self.quality else NO_OVERRIDES
        return replace(said, kl=AUTO_KL) if self.is_auto and said.kl is None else said

    @property
    def recipe_options(self) -> dict[str, Any]:
        """The table `recipe` as it was written; `compile.recipe` knows the defaults and what goes together."""
        return self.recipe.model_dump(exclude_unset=True)

    @property
    def runtime_options(self) -> dict[str, RuntimeOption]:
        """The options that go into a release, with their defaults; what is left to the engine is left out."""
        return dict(sorted(self.options.model_dump(exclude_none=True).items()))


class GgufProfile(_Profile):
    """llama.cpp."""

    runtime: Literal["gguf"]
    quantization: GgufQuantization
    """llama.cpp's name of the type, or "auto" for the smallest that passes its gate and fits, or "prebuilt"."""
    accelerator: Literal["cuda", "metal", "vulkan", "opencl", "cpu"]
    """What the device must really run the model on, as llama.cpp itself says. Only cpu was ever proven by us."""
    recipe: GgufRecipe = GgufRecipe()
    options: GgufOptions = GgufOptions()

    @model_validator(mode="after")
    def _cpu_has_no_gpu_layers(self) -> GgufProfile:
        on_gpu = {
            "gpu_layers": self.options.gpu_layers not in (None, 0),
            **{name: getattr(self.options, name) is not None for name in ("main_gpu", "split_mode", "tensor_split")},
        }
        wrong = [name for name, said in on_gpu.items() if said]
        if self.accelerator == "cpu" and wrong:
            raise _contradiction(f"options.{wrong[0]} cannot be used: the accelerator is cpu")
        return self


class MlxProfile(_Profile):
    """mlx-lm."""

    runtime: Literal["mlx"]
    quantization: MlxQuantization
    """Bits of a weight, or a float type, or "auto" for the smallest that passes and fits, or "prebuilt"."""
    accelerator: Literal["metal", "cpu"]
    """What the device must really run the model on."""
    recipe: MlxRecipe = MlxRecipe()
    options: MlxOptions = MlxOptions()


class OnnxProfile(_Profile):
    """onnxruntime-genai."""

    runtime: Literal["onnx"]
    quantization: OnnxQuantization
    """Precision of the weights, or "auto" for the smallest that passes its gate and fits, or "prebuilt"."""
    accelerator: Literal["qnn", "openvino", "dml", "webgpu", "cuda", "cpu"]
    """What the device must really run the model on: onnxruntime's execution provider."""
    recipe: OnnxRecipe = OnnxRecipe()
    options: OnnxOptions = OnnxOptions()


Profile = Annotated[GgufProfile | MlxProfile | OnnxProfile, Field(discriminator="runtime")]


def _contradiction(message: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{text}", {"text": message})
