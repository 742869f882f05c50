"""The stages that measure a GGUF, on a tiny model of random weights: the honest one passes, and each fault is seen
by the check that is there for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from edgewright_controller.compile import child
from edgewright_controller.compile.child import Stage
from edgewright_controller.quality import divergence, hyperparameters, tensors
from edgewright_controller.quality.divergence import Chunk, DivergenceLimit, Verdict
from edgewright_controller.quality.tensors import TensorMeasure, TypeLimit

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

VOCABULARY: Final = 49152
CHUNKS: Final = [[(17 * i + 7919 * number) % VOCABULARY for i in range(48)] for number in range(4)]
FIDELITY: Final = DivergenceLimit(1e-8)
LIMITS: Final = {
    "F32": TypeLimit(error=1e-6, gain=1e-6, worst_block=1e-5, worst_row=1e-5),
    "Q8_0": TypeLimit(error=0.01, gain=0.01, worst_block=0.5, worst_row=0.5),
}

# Weights this large, so that attention attends to something and a fault in it reaches the logits.
_MAKE: Final = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(7)
config = LlamaConfig(
    vocab_size=int(sys.argv[2]), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rope_parameters={"rope_theta": 100000.0,
    "rope_type": "default"}, rms_norm_eps=1e-5, initializer_range=0.35, tie_word_embeddings=True, bos_token_id=1,
    eos_token_id=2,
)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


class Lab:
    """A folder with the honest model, its reference and its unquantised GGUF, made once for all tests here."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        made = [sys.executable, "-c", _MAKE, str(self.source), str(VOCABULARY)]
        subprocess.run(made, check=True, capture_output=True, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, self.source / name)
        self.reference = folder / "reference.f32"
        asked = {"source": str(self.source), "chunks": CHUNKS, "out": str(self.reference), "threads": 1}
        assert self.stage("reference_logits", asked)["vocabulary"] == VOCABULARY
        self.parent = self.convert(self.source, "parent")

    def stage(self, script: str, request: dict[str, Any]) -> dict[str, Any]:
        one = Stage(child.CHILDREN / f"{script}.py", sys.executable, 300.0)
        with (self.folder / f"{script}.log").open("wb") as log:
            return asyncio.run(child.run(one, request, self.folder, log, lambda _done, _say: None))

    def convert(self, source: Path, name: str) -> Path:
        out = self.folder / f"{name}.gguf"
        self.stage("gguf_convert", {"source": str(source), "out": str(out), "type": "bf16", "name": "tiny"})
        return out

    def quantise(self, parent: Path, ftype: str) -> Path:
        out = parent.with_name(f"{parent.stem}-{ftype}.gguf")
        asked = {"source": str(parent), "out": str(out), "ftype": ftype, "threads": 1, "pure": False}
        self.stage("gguf_quantise", asked)
        return out

    def altered(self, name: str, config: dict[str, Any]) -> Path:
        """The honest model with another config.json."""
        folder = self.folder / name
        shutil.copytree(self.source, folder)
        document = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(document | config))
        return folder

    def logits(self, artifact: Path, *, float32: bool) -> tuple[list[Chunk], dict[str, Any]]:
        asked = {"artifact": str(artifact), "reference": str(self.reference), "vocabulary": VOCABULARY}
        asked |= {"chunks": CHUNKS, "first": 0, "count": len(CHUNKS), "float32": float32, "threads": 1}
        found = self.stage("gguf_logits", asked)
        chunks = [
            Chunk(tuple(one["kl"]), tuple(one["source_log_p"]), tuple(one["artifact_log_p"]), one["same_top"])
            for one in found["chunks"]
        ]
        return chunks, found["hyperparameters"]

    def tensors(self, artifact: Path) -> tuple[tensors.Finding, ...]:
        asked = {"artifact": str(artifact), "parent": str(self.parent)}
        found = self.stage("gguf_tensors", asked | {"block": tensors.BLOCK, "quiet": tensors.QUIET, "moved": False})
        assert found["tensors"]
        return tensors.judge([TensorMeasure(**one) for one in found["tensors"]], LIMITS, found["expected"])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Lab:
    return Lab(tmp_path_factory.mktemp("quality"), demo_model)


@pytest.fixture(scope="module")
def wanted(lab: Lab) -> dict[str, hyperparameters.Value]:
    return hyperparameters.of_config(json.loads((lab.source / "config.json").read_text()))


def test_an_honest_conversion_is_faithful_to_the_last_digits(
    lab: Lab, wanted: dict[str, hyperparameters.Value]
) -> None:
    chunks, held = lab.logits(lab.quantise(lab.parent, "F32"), float32=True)
    assert divergence.judge(chunks, FIDELITY, last=True) == (Verdict.PASS, ())
    assert hyperparameters.differences(wanted, held) == ()
    assert {"rope_base", "norm_epsilon", "kv_heads", "head_dim"} <= held.keys()


def test_an_honest_quantisation_costs_little_and_keeps_every_tensor(lab: Lab) -> None:
    artifact = lab.quantise(lab.parent, "Q8_0")
    chunks, _ = lab.logits(artifact, float32=False)
    found = divergence.summary(chunks)
    assert FIDELITY.kl < found.kl < 0.05
    assert lab.tensors(artifact) == ()


def test_hyperparameters_that_were_lost_on_the_way_are_seen_twice(
    lab: Lab, wanted: dict[str, hyperparameters.Value]
) -> None:
    lost = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "rms_norm_eps": 1e-3}
    artifact = lab.quantise(lab.convert(lab.altered("lost", lost), "lost"), "F32")
    chunks, held = lab.logits(artifact, float32=True)
    assert divergence.judge(chunks, FIDELITY, last=True)[0] is Verdict.REFUSE
    base, epsilon = hyperparameters.differences(wanted, held)
    assert base.startswith("rope_base: the source has 100000.0")
    assert epsilon.startswith("norm_epsilon")


def _scaled(weight: Any) -> Any:
    return weight * 1.05


def _without_a_head(weight: Any) -> Any:
    weight = weight.copy()
    weight[:16] = 0
    return weight


def _rows_exchanged(weight: Any) -> Any:
    return weight[::-1].copy()


# Scaled, without one head's weights, and with its rows exchanged: what a 4-bit model's own divergence would hide.
_FAULTS: Final[dict[str, Callable[[Any], Any]]] = {
    "blk.1.ffn_down.weight": _scaled,
    "blk.0.attn_v.weight": _without_a_head,
    "token_embd.weight": _rows_exchanged,
}


def test_faults_in_single_tensors_are_found_by_name(lab: Lab) -> None:
    faulty = lab.folder / "faulty.gguf"
    shutil.copyfile(lab.parent, faulty)
    for tensor, fault in _FAULTS.items():
        _plant(faulty, tensor, fault)
    found = lab.tensors(lab.quantise(faulty, "Q8_0"))
    assert {one.tensor for one in found} == _FAULTS.keys()


def _plant(file: Path, name: str, fault: Callable[[Any], Any]) -> None:
    """Change one tensor of an unquantised GGUF in place, at full length."""
    import numpy as np
    from gguf import GGUFReader

    reader = GGUFReader(file, "r+")
    (tensor,) = (one for one in reader.tensors if one.name == name)
    halves = tensor.data.view(np.uint16)
    values = (halves.astype(np.uint32) << 16).view(np.float32)
    changed = np.ascontiguousarray(fault(values), np.float32).view(np.uint32)
    # Rounded to the nearest, as bf16 is made; cutting off would change the gain.
    halves[:] = ((changed + 0x7FFF + ((changed >> 16) & 1)) >> 16).astype(np.uint16)
    reader.data.flush()
