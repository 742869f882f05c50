"""llama.cpp's recipes on tiny models: the importance matrix is what the layers are really multiplied with, and every
type, override and split that a manifest can ask for is made, or refused in words."""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgewright_controller import gguf_tensor_types
from edgewright_controller.compile import calibration, child, toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder, BuildFailed
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.recipe_gguf import IMATRIX_NEEDED, QUANTIZATIONS
from edgewright_controller.compile.source import Source, inspect
from edgewright_controller.compile.store import ArtifactStore

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(600)]

LEAST: Final = calibration.LEAST_TOKENS

# For each of the layers' weights, the sum of the squares of what it is multiplied with, by transformers in float32.
_SQUARES: Final = """
import json, sys, torch
from transformers import AutoModelForCausalLM
folder, ids = sys.argv[1], json.loads(sys.stdin.read())
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
names = {"self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}
sums = {}
def watch(name):
    def see(module, given, out):
        sums[name] = sums.get(name, 0) + given[0].double().pow(2).sum((0, 1))
    return see
for number, layer in enumerate(model.model.layers):
    for theirs, ours in names.items():
        layer.get_submodule(theirs).register_forward_hook(watch(f"blk.{number}.{ours}.weight"))
with torch.no_grad():
    for chunk in ids:
        model(torch.tensor([chunk]))
print(json.dumps({name: total.tolist() for name, total in sums.items()}))
"""


class Lab:
    """The trained model, 256 wide, as an unquantised GGUF with its importance matrix."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.parent, self.matrix = folder / "parent.gguf", folder / "parent.imatrix"
        self.stage("gguf_convert", {"source": str(model), "out": str(self.parent), "type": "bf16", "name": "tiny"})
        self.measured = self.measure(calibration.SHIPPED, self.matrix)

    def stage(self, script: str, request: dict[str, Any]) -> dict[str, Any]:
        """What the stage gives, in this process: starting llama.cpp anew each time would take most of the time."""
        work = {"gguf_convert": "convert", "gguf_imatrix": "imatrix", "gguf_quantise": "quantise"}.get(script, "split")
        given: dict[str, Any] = getattr(importlib.import_module(script), work)(request, lambda _done, _say: None)
        return given

    def measure(self, text: Path, out: Path) -> dict[str, Any]:
        # One thread: those of ggml spin while they wait for each other.
        asked = {"source": str(self.parent), "text": str(text), "out": str(out), "threads": 1}
        return self.stage("gguf_imatrix", asked | {"least": LEAST, "most": LEAST})

    def quantise(self, ftype: str, **more: Any) -> Path:
        out = self.folder / "quantised.gguf"
        asked = {"source": str(self.parent), "out": str(out), "ftype": ftype, "threads": 1, "pure": False}
        self.stage("gguf_quantise", asked | more)
        return out


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(child.CHILDREN))
        yield Lab(tmp_path_factory.mktemp("lab"), tiny_models / "trained")


def test_the_importance_matrix_is_what_transformers_multiplies_the_weights_with(lab: Lab) -> None:
    read = _tensors(lab.matrix)
    tokens = lab.measured["tokens"]
    assert tokens == LEAST
    assert lab.measured["tensors"] == 4 * 7
    expected = _squares(lab.model, tokens)
    for name, sums in expected.items():
        assert read[f"{name}.counts"].ravel().tolist() == [tokens]
        # llama.cpp rounds what it multiplies bf16 weights with to bf16.
        assert read[f"{name}.in_sum2"].ravel() == pytest.approx(np.array(sums), rel=0.03)
    one, other = expected["blk.0.attn_q.weight"], expected["blk.0.ffn_up.weight"]
    assert one != pytest.approx(other, rel=0.5)  # or every column would pass for every other


def test_the_matrix_of_the_same_text_has_the_same_bytes(lab: Lab, tmp_path: Path) -> None:
    lab.measure(calibration.SHIPPED, tmp_path / "again.imatrix")
    assert (tmp_path / "again.imatrix").read_bytes() == lab.matrix.read_bytes()


def test_a_matrix_brings_an_artifact_of_the_same_size_closer(lab: Lab) -> None:
    plain = lab.quantise("IQ3_S")
    plain_size, far = plain.stat().st_size, _error(plain, lab)
    weighed = lab.quantise("IQ3_S", imatrix=str(lab.matrix))
    assert weighed.stat().st_size == plain_size
    assert _error(weighed, lab) < 0.8 * far


@pytest.mark.parametrize("ftype", ["IQ3_XXS", "TQ1_0", "Q2_K_S"])
def test_types_below_3_bits_are_made_with_the_matrix(lab: Lab, ftype: str) -> None:
    made = _types(lab.quantise(ftype, imatrix=str(lab.matrix)))
    assert made == _predicted(ftype, lab)


def test_without_a_matrix_llama_cpp_refuses_them(lab: Lab) -> None:
    with pytest.raises(Exception, match="refused to quantise to IQ2_XS"):
        lab.quantise("IQ2_XS")


def test_llama_cpp_gives_every_tensor_the_type_that_is_predicted_for_every_recipe(lab: Lab) -> None:
    for ftype in QUANTIZATIONS:
        assert _dry_run(lab.parent, ftype) == _predicted(ftype, lab), ftype


def test_overrides_decide_by_the_first_pattern_that_fits(lab: Lab) -> None:
    overrides = [[r"blk\.0\.attn", "F16"], ["attn_v", "Q8_0"], ["token_embd", "Q4_0"]]
    types = _types(lab.quantise("Q4_K_M", overrides=overrides))
    assert types["blk.0.attn_v.weight"] == types["blk.0.attn_output.weight"] == "F16"
    assert {types[f"blk.{layer}.attn_v.weight"] for layer in (1, 2, 3)} == {"Q8_0"}
    assert types["token_embd.weight"] == "Q4_0"
    assert types["blk.1.attn_q.weight"] == "Q4_K"


def test_the_output_and_the_embedding_can_have_types_of_their_own(lab: Lab) -> None:
    plain = _types(lab.quantise("Q4_0"))
    assert plain["token_embd.weight"] == "Q6_K"  # llama.cpp's choice for an embedding that is the output layer too
    assert _types(lab.quantise("Q4_0", token_embedding_type="Q8_0")) == plain | {"token_embd.weight": "Q8_0"}
    assert _types(lab.quantise("Q4_0", output_tensor_type="Q5_0")) == plain | {"token_embd.weight": "Q5_0"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([["atn_v", "Q8_0"]], r"recipe\.overrides\.'atn_v' fits no tensor .*there are blk\.N\.attn_k\.weight, "),
        ([["attn_norm", "Q8_0"]], r"recipe\.overrides\.'attn_norm' fits no tensor"),
        ([["attn", "Q8_0"], ["attn_v", "F16"]], r"recipe\.overrides\.'attn_v' decides nothing"),
        ([["token_embd", "IQ2_XS"]], r"token_embd\.weight cannot be IQ2_XS, which needs an importance matrix"),
    ],
)
def test_an_override_that_means_nothing_is_refused_by_its_key(lab: Lab, overrides: list[list[str]], words: str) -> None:
    with pytest.raises(Exception, match=words):
        lab.quantise("Q4_K_M", overrides=overrides, imatrix=str(lab.matrix))


def test_a_text_that_is_too_short_is_refused_with_the_number_of_tokens_that_are_needed(
    lab: Lab, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("All work and no play. " * 100)
    with pytest.raises(Exception, match=r"gives [0-9,]+ tokens of this model; .* at least 4,096: name a longer"):
        lab.measure(short, tmp_path / "none.imatrix")
    assert not (tmp_path / "none.imatrix").exists()


def test_tensors_that_are_laid_out_otherwise_are_not_believed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = importlib.import_module("gguf_imatrix")
    ggml = stage.Ggml()
    honest = stage.Tensor(type=0, ne=(3, 2, 1, 1), nb=(4, 12, 24, 24), op=0, name=b"blk.0.attn_q.weight")
    place = ctypes.create_string_buffer(ctypes.sizeof(honest) + 64)
    ctypes.memmove(place, ctypes.addressof(honest), ctypes.sizeof(honest))
    ggml.check(ctypes.addressof(place))

    class Longer(ctypes.Structure):
        _fields_ = (stage.Tensor._fields_[0], ("new", ctypes.c_int64), *stage.Tensor._fields_[1:])

    monkeypatch.setattr(stage, "Tensor", Longer)
    with pytest.raises(Exception, match=r"laid out otherwise .* install the llama-cpp-python of constraints"):
        ggml.check(ctypes.addressof(place))


def test_a_split_artifact_is_the_same_model_in_parts_and_llama_cpp_loads_the_first(lab: Lab, tmp_path: Path) -> None:
    whole = lab.quantise("Q8_0")
    asked = {"source": str(whole), "out": str(tmp_path / "model.gguf"), "bytes": 1_000_000}
    parts = lab.stage("gguf_split", asked)["files"]
    assert parts == [f"model-{number:05}-of-00003.gguf" for number in range(1, 4)]
    assert all((tmp_path / part).stat().st_size < 1_200_000 for part in parts)
    together: dict[str, Any] = {}
    for part in parts:
        together |= _tensors(tmp_path / part)
    there = _tensors(whole)
    assert all(np.array_equal(together.pop(name), tensor) for name, tensor in there.items())
    assert not together
    assert _answer(tmp_path / parts[0]) == _answer(whole)


class Place:
    """A builder in an empty state folder."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(folder / "store")
        self.builder = Builder(self.store, folder, toolchain.default_interpreters(), threads=1)
        self.stages: list[str] = []

    async def build(self, source: Source, recipe: Recipe) -> Path:
        key = build_key(source.digest, recipe, self.builder.versions("gguf"), source.calibration.digest)
        heard = self.stages
        built = await self.builder.build(source, recipe, key, lambda progress: heard.append(progress.stage))
        return self.store.path(built.bundle)


async def test_two_recipes_share_a_matrix_and_a_build_says_which_stage_refused(
    tmp_path: Path, tiny_models: Path
) -> None:
    place, source = Place(tmp_path / "state"), inspect(tiny_models / "llama")
    await place.build(source, make("gguf", "Q2_K"))
    assert "gguf_imatrix" in place.stages
    place.stages.clear()
    folder = await place.build(source, make("gguf", "Q4_0", {"imatrix": True, "split": 1_000_000}))
    assert "gguf_imatrix" not in place.stages
    assert [path.name for path in folder.iterdir()] == ["model.gguf"]  # small enough for one part
    bad = make("gguf", "Q4_0", {"overrides": {"attn_v": "Q6_K"}})
    with pytest.raises(BuildFailed, match=r"overrides\.'attn_v': Q6_K needs rows that divide by 256.* have 64"):
        await place.build(source, bad)


def _tensors(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


def _types(path: Path) -> dict[str, str]:
    from gguf import GGUFReader

    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def _predicted(ftype: str, lab: Lab) -> dict[str, str]:
    """The types of the matrices, as artifact_size knows them."""
    rows = dict.fromkeys((*gguf_tensor_types.PARTS, gguf_tensor_types.EMBEDDING), 256) | {"ffn_down": 512}
    found = gguf_tensor_types.types(make("gguf", ftype), 4, grouped=2, rows=rows, tied=True)
    norms = {name: "F32" for name, kind in _types(lab.parent).items() if kind == "F32"}
    return found | norms


def _dry_run(source: Path, ftype: str) -> dict[str, str]:
    """Each tensor's type, as llama.cpp's dry run prints it."""
    import llama_cpp

    words: list[str] = []

    @llama_cpp.llama_log_callback
    def listen(_level: int, text: bytes, _user: Any) -> None:
        words.append(text.decode())

    quantise = importlib.import_module("gguf_quantise")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, quantise.UNQUANTISED.get(ftype, f"LLAMA_FTYPE_MOSTLY_{ftype}"))
    params.nthread, params.dry_run = 1, True
    weights = np.ones(4, np.float32)
    matrix = (llama_cpp.llama_model_imatrix_data * 2)()
    matrix[0].name, matrix[0].size = b"none", weights.size
    matrix[0].data = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if ftype in IMATRIX_NEEDED:
        params.imatrix = matrix
    llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))
    try:
        status = llama_cpp.llama_model_quantize(str(source).encode(), b"/none", ctypes.byref(params))
    finally:
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))
    assert status == 0
    line = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +(\w+), size = [^(\n]*(?:\((\w+)\))?")
    return {name: (new or old).upper() for name, old, new in line.findall("".join(words))}


def _squares(model: Path, tokens: int) -> dict[str, list[float]]:
    from transformers import AutoTokenizer

    text = calibration.SHIPPED.read_text()
    ids = AutoTokenizer.from_pretrained(model)(text).input_ids[:tokens]
    begin = ids[0]
    chunks = [[begin, *ids[start + 1 : start + 512]] for start in range(0, tokens, 512)]
    asked = [sys.executable, "-c", _SQUARES, str(model)]
    done = subprocess.run(asked, input=json.dumps(chunks), capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _error(artifact: Path, lab: Lab) -> float:
    """How far what the layers compute is from the parent's: the weights' squared errors, each by its column's weight in
    the text, all added up."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    matrix = _tensors(lab.matrix)
    parent = {tensor.name: tensor for tensor in GGUFReader(lab.parent).tensors}
    total = 0.0
    for tensor in GGUFReader(artifact).tensors:
        sums = matrix.get(f"{tensor.name}.in_sum2")
        if sums is not None:
            wanted = dequantize(parent[tensor.name].data, parent[tensor.name].tensor_type)
            total += float((np.square(dequantize(tensor.data, tensor.tensor_type) - wanted) * sums).sum())
    return total


def _answer(model: Path) -> list[int]:
    import llama_cpp

    llm = llama_cpp.Llama(str(model), n_ctx=64, n_threads=1, verbose=False)
    stream = llm.generate(llm.tokenize(b"The class statement"), temp=0.0)
    return [next(stream) for _ in range(6)]
