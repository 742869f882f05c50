"""The three real toolchains on the small model: same key, same bytes; and the model is still the model."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder, BuildFailed, Built, Progress
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import Source, inspect
from edgewright_controller.compile.store import ArtifactStore

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]  # beside the builds of other tests

PROMPT = "The capital of France is"


class Place:
    """One state folder with its builder; two of them share nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ArtifactStore(folder / "store")
        self.builder = Builder(self.store, folder, toolchain.default_interpreters(), threads=1)
        self.stages: set[tuple[str, str]] = set()
        self.started = asyncio.Event()

    async def build(self, source: Source, recipe: Recipe) -> Built:
        key = build_key(source.digest, recipe, self.builder.versions(recipe.runtime))
        return await self.builder.build(source, recipe, key, self._note)

    async def artifact(self, source: Source, recipe: Recipe) -> Path:
        return self.store.path((await self.build(source, recipe)).bundle)

    def count(self, stage: str) -> int:
        return sum(name == stage for _key, name in self.stages)

    def _note(self, progress: Progress) -> None:
        self.stages.add((progress.key, progress.stage))
        self.started.set()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty state folder, removed afterwards: artifacts are large."""
    yield Place(tmp_path / "state")
    shutil.rmtree(tmp_path / "state")


@pytest.fixture(scope="module")
def source(demo_model: Path) -> Source:
    return inspect(demo_model)


@pytest.mark.parametrize("recipe", [make("gguf", "Q4_K_M"), make("mlx", "4bit"), make("onnx", "int4")], ids=str)
async def test_the_same_key_gives_the_same_bytes_in_another_folder_from_another_place(
    source: Source, demo_model: Path, recipe: Recipe, place: Place, tmp_path: Path
) -> None:
    first = await place.build(source, recipe)
    (tmp_path / "elsewhere").symlink_to(demo_model)
    other = Place(place.folder / "another" / "deeper")
    second = await other.build(inspect(tmp_path / "elsewhere"), recipe)
    assert first.artifact == second.artifact
    for file in place.store.path(first.bundle).glob("*.json"):
        assert str(tmp_path) not in file.read_text()


async def test_two_recipes_at_once_convert_the_checkpoint_once(source: Source, place: Place) -> None:
    q8, q4 = await asyncio.gather(
        place.build(source, make("gguf", "Q8_0")), place.build(source, make("gguf", "Q4_K_M"))
    )
    assert place.count("gguf_convert") == 1
    assert place.count("gguf_quantise") == 2
    assert q8.artifact.size > q4.artifact.size


async def test_a_build_of_garbage_shows_the_converters_last_lines(source: Source, place: Place, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in source.files:
        (model / file.path).symlink_to(file.place)
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").write_text('{"broken": true}')
    with pytest.raises(BuildFailed) as caught:
        await place.build(inspect(model), make("gguf", "Q8_0"))
    assert caught.value.stage == "gguf_convert"
    assert caught.value.last_lines
    assert not list((place.folder / "intermediates").iterdir())


async def test_a_cancelled_build_ends_its_toolchain_at_once(source: Source, place: Place) -> None:
    building = asyncio.create_task(place.build(source, make("onnx", "int4")))
    await asyncio.wait_for(place.started.wait(), 60)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(building, 30)
    assert not [p for p in (place.folder / "builds").iterdir() if p.name.startswith(".")]
    # No process is left that works below this state folder.
    assert not [process for process in psutil.process_iter() if _works_in(process, place.folder)]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd().startswith(str(folder))
    except psutil.Error:
        return False


def _python(code: str, *arguments: str) -> Any:
    """What a fresh interpreter prints last, as JSON: toolchains do not share a process, nor do tests."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


TORCH = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = tokenizer(sys.argv[2])["input_ids"]
print(json.dumps({"ids": ids, "logits": model(torch.tensor([ids])).logits[0, -1].tolist()}))
"""

MLX = """
import json, sys
import mlx.core as mx
from mlx_lm import load
model, tokenizer = load(sys.argv[1])
model.set_dtype(mx.float32)
ids = json.loads(sys.argv[2])
print(json.dumps(model(mx.array([ids]))[0, -1].tolist()))
"""


def _furthest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def reference(demo_model: Path) -> dict[str, Any]:
    """Ids of a prompt, and the source's logits after it, by transformers in float32."""
    # Repeated: at the first positions a wrong rotary base hardly shows.
    answer: dict[str, Any] = _python(TORCH, str(demo_model), PROMPT * 4)
    return answer


async def test_the_mlx_build_computes_what_its_source_computes_and_an_uncured_one_does_not(
    source: Source, reference: dict[str, Any], place: Place, tmp_path: Path
) -> None:
    artifact = await place.artifact(source, make("mlx", "fp32"))
    ids = json.dumps(reference["ids"])

    assert _furthest(_python(MLX, str(artifact), ids), reference["logits"]) < 0.01

    # The fault itself, on the same weights: mlx-lm falls back to 10000 where it finds no top-level rope_theta.
    uncured = tmp_path / "uncured"
    uncured.mkdir()
    for file in artifact.iterdir():
        (uncured / file.name).symlink_to(file)
    config = json.loads((artifact / "config.json").read_text())
    assert config.pop("rope_theta") == config["rope_parameters"]["rope_theta"] == 100000.0
    (uncured / "config.json").unlink()
    (uncured / "config.json").write_text(json.dumps(config))
    assert _furthest(_python(MLX, str(uncured), ids), reference["logits"]) > 0.3


OTHER_FAMILY = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
torch.manual_seed(1)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
small = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
more = json.loads(sys.argv[4])
config = AutoConfig.for_model(sys.argv[3], vocab_size=len(tokenizer), **small, **more)
AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
print(json.dumps(True))
"""


def _of_another_family(model: Path, folder: Path, family: str, **more: Any) -> Path:
    """A model of another architecture with small random weights, and the demo model's tokenizer."""
    _python(OTHER_FAMILY, str(model), str(folder), family, json.dumps(more))
    return folder


async def test_a_family_that_rotates_only_a_part_of_each_head_is_computed_as_its_source(
    demo_model: Path, place: Place, tmp_path: Path
) -> None:
    folder = _of_another_family(demo_model, tmp_path / "phi", "phi", partial_rotary_factor=0.75)
    artifact = await place.artifact(inspect(folder), make("mlx", "fp32"))
    source = _python(TORCH, str(folder), PROMPT * 4)
    assert _furthest(_python(MLX, str(artifact), json.dumps(source["ids"])), source["logits"]) < 0.01


@pytest.mark.parametrize("family", ["llama", "qwen", "gemma"])
def test_the_converter_has_the_library_that_it_was_made_with(family: str) -> None:
    # The registry's own package of that name is older, and lacks what most families of models need.
    assert _python(f"import conversion.{family}; print('true')")


GENAI = """
import json, sys
import onnxruntime_genai as og
model = og.Model(sys.argv[1])
params = og.GeneratorParams(model)
params.set_search_options(max_length=64)
generator = og.Generator(model, params)
generator.append_tokens(json.loads(sys.argv[2]))
print(json.dumps(generator.get_output("logits")[0, -1].tolist()))
"""


ONNX_LIMITS = {
    make("onnx", "fp32"): 0.01,
    make("onnx", "int8"): 1.5,
    make("onnx", "int4"): 8.0,
}


async def test_onnx_builds_share_one_graph_compute_what_their_source_computes_and_name_no_device(
    source: Source, reference: dict[str, Any], place: Place
) -> None:
    built = await asyncio.gather(*(place.artifact(source, recipe) for recipe in ONNX_LIMITS))
    assert place.count("onnx_build") == 1
    assert place.count("onnx_round") == 2
    for artifact, limit in zip(built, ONNX_LIMITS.values(), strict=True):
        logits = _python(GENAI, str(artifact), json.dumps(reference["ids"]))
        assert _furthest(logits, reference["logits"]) < limit
        config = json.loads((artifact / "genai_config.json").read_text())
        assert config["model"]["decoder"]["session_options"]["provider_options"] == []
        assert not (artifact / "model_config.json").exists()
    assert source.facts
    assert sum(file.stat().st_size for file in built[-1].iterdir()) <= 0.33 * source.facts.bytes, "int4 is small"


VOCABULARY = """
import json, sys
import llama_cpp
llama = llama_cpp.Llama(sys.argv[1], vocab_only=True, verbose=False)
texts = json.loads(sys.argv[2])
print(json.dumps([llama.tokenize(text.encode(), add_bos=False, special=True) for text in texts]))
"""

TOKENS = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([tokenizer(text, add_special_tokens=False)["input_ids"] for text in json.loads(sys.argv[2])]))
"""


async def test_the_gguf_and_the_cured_tokenizer_give_the_same_tokens_around_digits(
    source: Source, demo_model: Path, place: Place
) -> None:
    artifact = await place.artifact(source, make("gguf", "Q8_0")) / "model.gguf"
    texts = json.dumps(["In 2024, 135 models", "x = [1, 22,  333]", "a  7b", "Zürich 8001", "def f(n): return n * 2"])
    assert _python(VOCABULARY, str(artifact), texts) == _python(TOKENS, str(demo_model), texts)
