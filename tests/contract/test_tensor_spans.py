"""Where tensors lie is read from a file's own header, to the byte, or the file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract.model_files import FileUnsafe, TensorSpan, gguf_header, onnx_graph, safetensors_header
from tests import model_files
from tests.model_files import field, onnx_node, onnx_of, onnx_weights


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_of_a_gguf(tmp_path: Path) -> None:
    data = model_files.gguf()
    spans = gguf_header.tensor_spans(written(tmp_path, "model.gguf", data))
    weights = len(data) - len(model_files.WEIGHTS)
    assert weights % 32 == 0
    assert spans == [TensorSpan("token_embd.weight", weights, 512), TensorSpan("output.weight", weights + 512, 2 * 34)]
    assert spans[-1].offset + spans[-1].size == len(data)
    with pytest.raises(FileUnsafe):
        gguf_header.tensor_spans(written(tmp_path, "short.gguf", data[:-1]))


def test_of_safetensors_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    table = {
        "late": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        "early": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
    }
    data = model_files.safetensors(table)
    spans = safetensors_header.tensor_spans(written(tmp_path, "a.safetensors", data))
    weights = len(data) - 24
    assert spans == [TensorSpan("early", weights, 8), TensorSpan("late", weights + 8, 16)]
    with pytest.raises(FileUnsafe):
        safetensors_header.tensor_spans(written(tmp_path, "short.safetensors", data[:-1]))


def test_of_a_graph_in_its_own_file_and_beside_it(tmp_path: Path) -> None:
    inside = field(8, "inside") + field(9, b"numbers of its own")
    weights = [onnx_weights(offset="64", length="16"), onnx_weights(offset="0", length="64"), inside]
    data = onnx_of(model_files.onnx_graph(onnx_node(), weights=weights))
    places = onnx_graph.tensor_spans(written(tmp_path, "model.onnx", data))
    assert places == {
        "model.onnx.data": [TensorSpan("w", 64, 16), TensorSpan("w", 0, 64)],
        "": [TensorSpan("inside", data.index(b"numbers of its own"), 18)],
    }


def test_a_tensor_without_a_length_or_a_name(tmp_path: Path) -> None:
    nameless = field(9, b"1234")
    data = onnx_of(model_files.onnx_graph(onnx_node(), weights=[onnx_weights(), nameless]))
    places = onnx_graph.tensor_spans(written(tmp_path, "model.onnx", data))
    assert places == {"": [TensorSpan("", data.index(b"1234"), 4)]}
    with pytest.raises(FileUnsafe):
        onnx_graph.tensor_spans(written(tmp_path, "short.onnx", data[:-1]))
