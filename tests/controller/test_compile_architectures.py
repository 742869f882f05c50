"""docs/models.md, asked of the toolchains: each architecture is converted, gated and generated from in each format that
can, and refused with its reason in each that cannot. One cell in `make test`, all in `make soak`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from edgewright_controller.compile.builder import BuildFailed
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import Source, inspect
from tests import models
from tests.planted.laboratory import Laboratory

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "models.md"
RUNTIMES: Final = ("gguf", "mlx", "onnx")
GATED: Final = {"gguf": "Q8_0", "mlx": "8bit", "onnx": "int8"}
FLOAT32: Final = {"gguf": "F32", "mlx": "fp32", "onnx": "fp32"}
PROMPT: Final = [1, *range(300, 340)]
TOKENS: Final = 12


def table() -> dict[str, dict[str, str]]:
    """Name of the test model → format → what the page says."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    return {name: dict(zip(RUNTIMES, map(str.strip, cells), strict=True)) for name, *cells in rows}


TABLE: Final = table()
CELLS: Final = [(name, runtime) for name, row in TABLE.items() for runtime in row]
# The architecture with which most can go wrong.
SHARE: Final = [("gemma3", "gguf")]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("architectures"))


def test_the_page_has_every_test_model() -> None:
    assert TABLE.keys() == set(models.NAMES)
    assert all(cell == "yes" or cell.startswith("no: ") for row in TABLE.values() for cell in row.values())


@pytest.fixture
def cells(soak: int) -> list[tuple[str, str]]:
    return CELLS if soak > 1 else SHARE


async def test_each_format_can_what_the_page_says(
    laboratory: Laboratory, tiny_models: Path, cells: list[tuple[str, str]]
) -> None:
    for name, runtime in cells:
        source = inspect(tiny_models / name)
        refused = await _refusal(laboratory, source, make(runtime, GATED[runtime]))
        wanted = TABLE[name][runtime]
        if wanted != "yes":
            assert re.search(rf"\b{_reason(wanted)}\b", refused), (name, runtime, refused)
            continue
        assert not refused, (name, runtime, refused)
        exact = await laboratory.artifact(source, make(runtime, FLOAT32[runtime]))
        assert _tokens(runtime, exact) == _tokens("source", source.folder), (name, runtime)


async def _refusal(laboratory: Laboratory, source: Source, recipe: Recipe) -> str:
    """Why there is no artifact of this build; "" when there is one."""
    try:
        return (await laboratory.build(source, recipe)).words
    except BuildFailed as error:
        return str(error)


def _reason(wanted: str) -> str:
    """`no: its reason: more` → its reason, which the refusal must name."""
    return wanted.split(": ")[1]


async def test_an_architecture_that_a_toolchain_does_not_know_is_named_at_once(
    laboratory: Laboratory, tiny_models: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_models / "llama", tmp_path / "unknown")
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["PelicanForCausalLM"], "model_type": "pelican"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BuildFailed, match=r"mlx-lm does not know PelicanForCausalLM \(model_type 'pelican'\)"):
        await laboratory.build(inspect(folder), make("mlx", "8bit"))


# The most probable tokens after a prompt: of the source in float32, and by each runtime of its float32 build.
_GENERATE: Final[Mapping[str, str]] = {
    "source": """
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
for _ in range(count):
    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
""",
    "gguf": """
import llama_cpp, numpy
model = llama_cpp.Llama(place + "/model.gguf", n_ctx=256, n_threads=1, verbose=False)
model.eval(ids)
for _ in range(count):
    ids.append(int(numpy.ctypeslib.as_array(model._ctx.get_logits(), (model.n_vocab(),)).argmax()))
    model.eval(ids[-1:])
""",
    "mlx": """
import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache
model, _ = load(place)
cache, given = make_prompt_cache(model), ids
for _ in range(count):
    given = [int(model(mx.array([given]), cache=cache)[0, -1].argmax())]
    ids = ids + given
""",
    "onnx": """
import onnxruntime_genai as og
model = og.Model(place)
params = og.GeneratorParams(model)
params.set_search_options(max_length=len(ids) + count, do_sample=False)
generator = og.Generator(model, params)
generator.append_tokens(ids)
for _ in range(count):
    generator.generate_next_token()
    ids.append(int(generator.get_next_tokens()[0]))
""",
}


def _tokens(runtime: str, place: Path) -> list[int]:
    begin = "import json, sys\nplace, ids, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])\n"
    code = begin + _GENERATE[runtime] + "\nprint(json.dumps(ids[-count:]))"
    command = [sys.executable, "-c", code, str(place), json.dumps(PROMPT), str(TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: Any = json.loads(done.stdout.strip().splitlines()[-1])
    return list(answer)
