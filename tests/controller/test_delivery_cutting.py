"""Blocks begin where tensors do, and by content elsewhere; whatever the file is, they add up to it."""

from __future__ import annotations

import io
import struct
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import block_index, bundle
from edgewright_contract.block_index import MAX_BLOCK_BYTES, Block
from edgewright_contract.model_files import TensorSpan
from edgewright_controller.delivery import cutting
from edgewright_controller.delivery.cutting import CutterMissing, block_sizes, tensor_blocks
from edgewright_controller.delivery.layout import Kind, Region, layout, regions
from tests.controller.delivery_pair import NUMBERS, gguf
from tests.model_files import field, onnx_graph, onnx_node, onnx_of, onnx_weights, safetensors


def cut(folder: Path) -> list[Block]:
    made = bundle.from_folder(folder)
    blocks = list(block_index.parse(cutting.cut(made, folder), made).blocks)
    for file in made.files:
        own = [block for block in blocks if block.path == file.path]
        data = (folder / file.path).read_bytes()
        assert b"".join(data[block.offset : block.offset + block.size] for block in own) == data
    return blocks


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_blocks_begin_at_tensors_and_small_neighbours_share_one(tmp_path: Path) -> None:
    data = gguf()
    blocks = cut(put(tmp_path, {"model.gguf": data}))
    weights = len(data) - 1_200_000 - 64 - 128
    behind = [(block.offset - weights, block.size) for block in blocks if block.offset >= weights]
    assert behind == [(0, MAX_BLOCK_BYTES), (MAX_BLOCK_BYTES, 1_200_000 - MAX_BLOCK_BYTES), (1_200_000, 192)]
    header = [block.size for block in blocks if block.offset < weights]
    assert sum(header) == weights
    assert max(header) <= cutting.CUTS[Kind.HEADER][2]
    assert len(header) > 5


def test_a_longer_template_changes_the_header_around_it_and_no_tensor(tmp_path: Path) -> None:
    before = {block.sha256 for block in cut(put(tmp_path / "a", {"model.gguf": gguf()}))}
    changed = [
        block
        for block in cut(put(tmp_path / "b", {"model.gguf": gguf("a template that says much more" * 5)}))
        if block.sha256 not in before
    ]
    assert 1 <= len(changed) <= 2
    assert sum(block.size for block in changed) <= 2 * cutting.CUTS[Kind.HEADER][2]


def test_external_weights_are_cut_where_the_graph_says(tmp_path: Path) -> None:
    weights = [
        onnx_weights("w.data", offset="0", length="70000"),
        onnx_weights("w.data", offset="73728", length="50000"),
    ]
    graph = onnx_of(onnx_graph(onnx_node(), weights=weights))
    blocks = cut(put(tmp_path, {"sub/model.onnx": graph, "sub/w.data": NUMBERS[:123_728]}))
    assert [(b.offset, b.size) for b in blocks if b.path == "sub/w.data"] == [(0, 73_728), (73_728, 50_000)]


def test_safetensors_are_cut_at_tensors(tmp_path: Path) -> None:
    table = {
        "a": {"dtype": "U8", "shape": [20_000], "data_offsets": [0, 20_000]},
        "b": {"dtype": "U8", "shape": [17_000], "data_offsets": [20_000, 37_000]},
    }
    data = safetensors(table, 37_000)
    blocks = cut(put(tmp_path, {"model.safetensors": data}))
    assert [(b.offset, b.size) for b in blocks[-2:]] == [(len(data) - 37_000, 20_000), (len(data) - 17_000, 17_000)]


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "model.onnx", "x.bin", "empty.json"])
def test_what_cannot_be_read_is_cut_by_content(tmp_path: Path, name: str) -> None:
    data = b"" if name == "empty.json" else NUMBERS
    sizes = [block.size for block in cut(put(tmp_path, {name: data}))]
    assert sum(sizes) == len(data)
    assert all(size <= cutting.CUTS[Kind.OPAQUE][2] for size in sizes)


def test_cutting_again_gives_the_same_bytes(tmp_path: Path) -> None:
    made = bundle.from_folder(put(tmp_path, {"model.gguf": gguf(), "x.bin": NUMBERS}))
    assert cutting.cut(made, tmp_path) == cutting.cut(made, tmp_path)


def test_cuts_by_content_stay_where_they_are_pinned() -> None:
    """Another library or parameter would make every device fetch what did not change, once."""
    data = b"".join(struct.pack("<Q", n * n * 0x9E3779B97F4A7C15 % (1 << 64)) for n in range(40_000))
    for kind, sizes in (
        (Kind.HEADER, PINNED_HEADER),
        (Kind.OPAQUE, PINNED_OPAQUE),
    ):
        assert list(block_sizes([Region(0, len(data), kind)], io.BytesIO(data))) == sizes


PINNED_HEADER = [
    13520,
    21285,
    8825,
    20415,
    16187,
    23983,
    23024,
    36842,
    29349,
    22142,
    8680,
    41866,
    12398,
    6797,
    18476,
    16211,
]
PINNED_OPAQUE = [53231, 171021, 95748]


def test_only_the_region_is_cut_and_not_what_follows() -> None:
    alone = list(block_sizes([Region(0, 100_000, Kind.HEADER)], io.BytesIO(NUMBERS[5:100_005])))
    sizes = list(block_sizes([Region(5, 100_000, Kind.HEADER)], io.BytesIO(NUMBERS)))
    assert sizes == alone
    assert sum(sizes) == 100_000


SPANS = st.lists(st.builds(TensorSpan, st.sampled_from("abc"), st.integers(0, 400_000), st.integers(0, 200_000)))


@given(st.integers(1, 500_000), SPANS)
def test_regions_lie_side_by_side_whatever_a_header_says(size: int, spans: list[TensorSpan]) -> None:
    found = list(regions(size, spans, Kind.OPAQUE))
    assert [region.start for region in found] == [0, *(region.end for region in found[:-1])]
    assert found[-1].end == size
    assert all(region.size > 0 for region in found)
    assert all((region.kind is Kind.TENSOR) == bool(region.name) for region in found)


@given(st.lists(st.integers(1, 3 * MAX_BLOCK_BYTES), max_size=40))
def test_blocks_of_tensors_add_up_and_are_within_the_limit(sizes: list[int]) -> None:
    blocks = list(tensor_blocks(sizes))
    assert sum(blocks) == sum(sizes)
    assert all(1 <= size <= MAX_BLOCK_BYTES for size in blocks)


def test_padding_goes_with_the_tensor_before_and_a_gap_does_not() -> None:
    found = list(regions(300_000, [TensorSpan("a", 10, 90), TensorSpan("b", 128, 72)], Kind.OPAQUE))
    assert found == [
        Region(0, 10, Kind.OPAQUE),
        Region(10, 118, Kind.TENSOR, "a"),
        Region(128, 72, Kind.TENSOR, "b"),
        Region(200, 299_800, Kind.OPAQUE),
    ]


def test_small_tensors_inside_a_graph_stay_with_what_describes_them(tmp_path: Path) -> None:
    weights = [field(8, "tiny") + field(9, bytes(8)), field(8, "large") + field(9, NUMBERS[:100_000])]
    data = onnx_of(onnx_graph(onnx_node(), weights=weights))
    made = bundle.from_folder(put(tmp_path, {"model.onnx": data}))
    assert [(r.kind, r.name) for r in layout(made, tmp_path)["model.onnx"]][:2] == [
        (Kind.HEADER, ""),
        (Kind.TENSOR, "large"),
    ]


def test_the_slow_form_of_the_cutter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle.from_folder(put(tmp_path, {"x.bin": NUMBERS[:1000]}))
    assert cutting.cut(made, tmp_path)
    from pyfastcdc.py import FastCDC

    slow = types.ModuleType("pyfastcdc")
    slow.FastCDC = FastCDC  # type: ignore[attr-defined]  # what the package gives where its extension cannot be loaded
    monkeypatch.setitem(sys.modules, "pyfastcdc", slow)
    with pytest.raises(CutterMissing, match="without its compiled part"):
        cutting.cut(made, tmp_path)
    monkeypatch.setitem(sys.modules, "pyfastcdc", None)
    with pytest.raises(CutterMissing, match="pip install"):
        cutting.cut(made, tmp_path)
