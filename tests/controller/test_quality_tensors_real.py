"""Every tensor of a GGUF, an MLX and an ONNX model against the source's, at 4 and at 8 bits, by the real stages.

The model that is built from has faults in a few of its tensors; it is measured against the honest one. Those are found
by name, whichever format and however few bits, and all others pass.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgewright_controller.compile import child
from edgewright_controller.compile.backends import onnx
from edgewright_controller.compile.child import Stage
from edgewright_controller.quality import tensors
from edgewright_controller.quality.tensor_limits import TENSOR_LIMITS
from edgewright_controller.quality.tensors import TensorMeasure
from tests import models

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

HEAD: Final = 64
LAYER: Final = "model.layers.{}.{}.weight"


def _scaled(weight: Any) -> Any:
    return weight * 1.05


def _without_a_heads_rows(weight: Any) -> Any:
    weight[:HEAD] = 0
    return weight


def _without_a_heads_columns(weight: Any) -> Any:
    weight[:, :HEAD] = 0
    return weight


def _rows_exchanged(weight: Any) -> Any:
    weight[[40, 41, 42]] = weight[[41, 42, 40]]
    return weight


def _one_scale_doubled(weight: Any) -> Any:
    weight[5, :64] *= 2
    return weight


def _of_another_adapter(weight: Any) -> Any:
    """What rank 4 adds, by a twentieth: half of what rounding to 4 bits costs."""
    drawn = np.random.default_rng(3)
    added = drawn.standard_normal((len(weight), 4)) @ drawn.standard_normal((4, weight.shape[1]))
    return weight + added * (0.05 * np.linalg.norm(weight) / np.linalg.norm(added))


# What becomes of which tensor; layers 2 and 3 exchange a matrix besides.
FAULTS: Final[dict[str, Callable[[Any], Any]]] = {
    LAYER.format(1, "mlp.down_proj"): _scaled,
    LAYER.format(0, "self_attn.v_proj"): _without_a_heads_rows,
    LAYER.format(1, "self_attn.o_proj"): _without_a_heads_columns,
    LAYER.format(0, "mlp.gate_proj"): _one_scale_doubled,
    "model.embed_tokens.weight": _rows_exchanged,
    LAYER.format(2, "self_attn.q_proj"): _of_another_adapter,
}
EXCHANGED: Final = (LAYER.format(0, "mlp.up_proj"), LAYER.format(1, "mlp.up_proj"))
FOUND: Final = {*FAULTS, *EXCHANGED}
GGUF_NAMES: Final = {
    *("blk.1.ffn_down.weight", "blk.0.attn_v.weight", "blk.1.attn_output.weight", "blk.0.ffn_gate.weight"),
    *("token_embd.weight", "blk.0.ffn_up.weight", "blk.1.ffn_up.weight", "blk.2.attn_q.weight"),
}


class Lab:
    """The honest checkpoint, a copy with faults, and stages to run in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = models.folder() / "trained"
        self.faulty = folder / "faulty"
        shutil.copytree(self.source, self.faulty)
        _plant(self.faulty / "model.safetensors")

    def stage(self, script: str, request: dict[str, Any]) -> dict[str, Any]:
        one = Stage(child.CHILDREN / f"{script}.py", sys.executable, 600.0)
        with (self.folder / f"{script}.log").open("wb") as log:
            return asyncio.run(child.run(one, request, self.folder, log, lambda _done, _say: None))

    def found(self, runtime: str, artifact: Path, **more: str) -> set[str]:
        """Names of the tensors that are refused."""
        asked = {"artifact": str(artifact), "source": str(self.source), "moved": False}
        asked |= {"block": tensors.BLOCK, "quiet": tensors.QUIET}
        got = self.stage(f"{runtime}_tensors", asked | more)
        measured = [TensorMeasure(**one) for one in got["tensors"]]
        assert got["parameters"] >= sum(int(np.prod(shape)) for shape in _shapes(self.source / "model.safetensors"))
        return {
            one.tensor.partition(" (")[0]
            for one in tensors.judge(measured, TENSOR_LIMITS[runtime], got["expected"], got["surplus"])
        }


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("tensors"))


@pytest.fixture(scope="module")
def parent(lab: Lab) -> Path:
    out = lab.folder / "parent.gguf"
    lab.stage("gguf_convert", {"source": str(lab.faulty), "out": str(out), "type": "bf16", "name": "faulty"})
    return out


@pytest.mark.parametrize("ftype", ["Q4_K_M", "Q8_0"])
def test_gguf(lab: Lab, parent: Path, ftype: str) -> None:
    artifact = lab.folder / f"{ftype}.gguf"
    asked = {"source": str(parent), "out": str(artifact), "ftype": ftype, "threads": 1, "pure": False}
    lab.stage("gguf_quantise", asked)
    assert lab.found("gguf", artifact, parent=str(parent)) == GGUF_NAMES


@pytest.mark.parametrize("bits", [4, 8])
def test_mlx(lab: Lab, bits: int) -> None:
    artifact = lab.folder / f"mlx{bits}"
    arguments = {"quantize": True, "q_bits": bits, "q_group_size": 64, "q_mode": "affine"}
    lab.stage("mlx_convert", {"source": str(lab.faulty), "out": str(artifact), "arguments": arguments})
    assert lab.found("mlx", artifact) == FOUND


@pytest.fixture(scope="module")
def graph(lab: Lab) -> Path:
    out = lab.folder / "graph"
    asked = {"source": str(lab.faulty), "out": str(out), "cache": str(lab.folder / "olive")}
    asked |= {"device": "cpu", "provider": "CPUExecutionProvider"}
    lab.stage("onnx_build", asked | {"passes": onnx.passes("fp32")})
    return out


@pytest.mark.parametrize("bits", [4, 8])
def test_onnx(lab: Lab, graph: Path, bits: int) -> None:
    artifact = lab.folder / f"onnx{bits}"
    asked = {"parent": str(graph), "out": str(artifact), "bits": bits, "block": 32, "symmetric": True}
    lab.stage("onnx_round", asked | {"embedding": True, "accuracy": 4})
    assert lab.found("onnx", artifact) == FOUND


def test_a_tensor_that_no_node_of_a_graph_uses_is_missing(lab: Lab, graph: Path) -> None:
    import onnx as library

    file = graph / "model.onnx"
    whole = library.load(str(file), load_external_data=False)
    (node,) = (node for node in whole.graph.node if node.name == "/model/layers.1/attn/o_proj/MatMul")
    whole.graph.node.remove(node)
    artifact = lab.folder / "without"
    shutil.copytree(graph, artifact)
    library.save(whole, str(artifact / "model.onnx"))
    assert lab.found("onnx", artifact) >= {LAYER.format(1, "self_attn.o_proj")}


def _shapes(file: Path) -> list[list[int]]:
    return [about["shape"] for about in _header(file)[0].values()]


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """What stands in the file, by name, and where its data begin."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _plant(file: Path) -> None:
    """Change tensors of a bfloat16 checkpoint where they stand."""
    header, begin = _header(file)
    data = np.memmap(file, np.uint8, "r+")

    def halves(name: str) -> Any:
        first, last = header[name]["data_offsets"]
        return data[begin + first : begin + last].view(np.uint16).reshape(header[name]["shape"])

    for name, fault in FAULTS.items():
        values = (halves(name).astype(np.uint32) << 16).view(np.float32)
        changed = np.ascontiguousarray(fault(values), np.float32).view(np.uint32)
        # Rounded to the nearest, as bfloat16 is made; cutting off would change the gain.
        halves(name)[:] = ((changed + 0x7FFF + ((changed >> 16) & 1)) >> 16).astype(np.uint16)
    one, other = (halves(name) for name in EXCHANGED)
    one[:], other[:] = other.copy(), one.copy()
    data.flush()
