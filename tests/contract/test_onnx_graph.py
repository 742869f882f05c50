"""What an ONNX file refers to is found wherever it stands, within bounds, and without reading weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from edgewright_contract.model_files import FileUnsafe, onnx_graph
from tests.model_files import field, onnx, onnx_node, onnx_of, onnx_weights, varint
from tests.model_files import onnx_graph as graph

ELSEWHERE = onnx_weights("evil.data")


def read(folder: Path, data: bytes) -> onnx_graph.OnnxGraph:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return onnx_graph.read(path)


def refused(folder: Path, data: bytes, why: str) -> None:
    assert read(folder, onnx()).external == {"model.onnx.data": 0}
    began = time.process_time()
    with pytest.raises(FileUnsafe, match=why):
        read(folder, data)
    # A million steps take three seconds, and twice that where a neighbour shares the processor's core.
    assert time.process_time() - began < 15


def attribute(name: str, *fields: bytes) -> bytes:
    return field(1, name) + b"".join(fields)


def test_an_honest_graph_says_where_its_weights_are_and_how_many_bytes(tmp_path: Path) -> None:
    weights = [onnx_weights(offset="64", length="16"), onnx_weights(offset="0", length="64"), onnx_weights("b.data")]
    found = read(tmp_path, onnx_of(graph(onnx_node(), weights=weights)))
    assert found.external == {"model.onnx.data": 80, "b.data": 0}
    assert not found.contexts
    assert not found.foreign


INSIDE_A_NODE = onnx_of(graph(onnx_node("Constant", "", attribute("value", field(5, ELSEWHERE)))))
SUBGRAPH = onnx_of(graph(onnx_node("If", "", attribute("then_branch", field(6, graph(weights=[ELSEWHERE]))))))
SUBGRAPHS = onnx_of(graph(onnx_node("Scan", "", attribute("bodies", field(11, graph(weights=[ELSEWHERE]))))))
INNER = graph(onnx_node("If", "", attribute("else_branch", field(6, graph(weights=[ELSEWHERE])))))
DEEP = onnx_of(graph(onnx_node("Loop", "", attribute("body", field(6, INNER)))))


@pytest.mark.parametrize(
    "model",
    [
        INSIDE_A_NODE,
        SUBGRAPH,
        SUBGRAPHS,
        DEEP,
        onnx_of(graph(onnx_node("X", "", attribute("values", field(10, ELSEWHERE))))),
        onnx_of(graph() + field(15, field(1, ELSEWHERE))),
        onnx_of(graph() + field(15, field(2, ELSEWHERE))),
        onnx_of(graph(onnx_node("Constant", "", attribute("sparse_value", field(22, field(1, ELSEWHERE)))))),
        onnx_of(graph(onnx_node("Constant", "", attribute("sparse_values", field(23, field(2, ELSEWHERE)))))),
        onnx_of(graph(), field(20, field(1, graph(weights=[ELSEWHERE])))),
        onnx_of(graph(), field(20, field(2, graph(weights=[ELSEWHERE])))),
        onnx_of(graph(), field(25, field(7, onnx_node("Constant", "", attribute("value", field(5, ELSEWHERE)))))),
        onnx_of(graph(), field(25, field(11, attribute("default", field(5, ELSEWHERE))))),
        onnx_of(graph(), field(7, graph(weights=[ELSEWHERE]))),  # a second graph, which a parser merges
    ],
    ids=[
        *("node", "subgraph", "subgraphs", "deep", "tensors", "sparse-values", "sparse-indices", "sparse-attribute"),
        *("sparse-attributes", "training-init", "training-step", "function", "function-default", "merged"),
    ],
)
def test_weights_elsewhere_are_found_wherever_the_graph_hides_them(tmp_path: Path, model: bytes) -> None:
    assert "evil.data" in read(tmp_path, model).external


def test_a_reader_of_onnx_agrees_about_the_graphs_of_these_tests() -> None:
    onnx_library = pytest.importorskip("onnx")
    model = onnx_library.load_model_from_string(DEEP)
    inner = model.graph.node[0].attribute[0].g.node[0].attribute[0].g
    assert inner.initializer[0].external_data[0].value == "evil.data"


@pytest.mark.attack("ONNX operators from a library of code")
@pytest.mark.parametrize(
    "model",
    [
        onnx_of(graph(onnx_node("Evil", "com.evil"))),
        onnx_of(graph(onnx_node("PyOp", "ai.onnx.contrib"))),
        onnx_of(graph(onnx_node("If", "", attribute("t", field(6, graph(onnx_node("Evil", "com.evil"))))))),
        onnx_of(graph(), field(25, field(1, "f") + field(10, "mine") + field(7, onnx_node("Evil", "com.evil")))),
        onnx_of(graph(onnx_node("Evil", "d" * 5000))),
    ],
)
def test_operators_that_need_a_library_are_told_by_their_domain(tmp_path: Path, model: bytes) -> None:
    own = onnx_of(
        graph(onnx_node("F", "mine"), onnx_node("MatMulNBits", "com.microsoft")), field(25, field(10, "mine"))
    )
    assert not read(tmp_path, own).foreign
    assert read(tmp_path, model).foreign


def context(*attributes: bytes) -> bytes:
    return onnx_of(graph(onnx_node("EPContext", "com.microsoft", *attributes)))


def test_a_vendors_compiled_graph_is_within_or_in_a_file_that_is_told(tmp_path: Path) -> None:
    within = attribute("embed_mode", field(3, 1)), attribute("ep_cache_context", field(4, b"\0" * 9000))
    assert not read(tmp_path, context(*within)).contexts
    beside = attribute("embed_mode", field(3, 0)), attribute("ep_cache_context", field(4, "../evil.bin"))
    for order in (beside, beside[::-1]):
        assert read(tmp_path, context(*order)).contexts == {"../evil.bin"}
    # The value that a parser would take is the last; here all count.
    torn = attribute("embed_mode", field(3, 1), field(3, 0)), beside[1]
    assert read(tmp_path, context(*torn)).contexts == {"../evil.bin"}
    source = attribute("onnx_model_filename", field(4, "/etc/passwd"))
    assert read(tmp_path, context(*within, source)).contexts == {"/etc/passwd"}
    refused(tmp_path, context(*beside, attribute("embed_mode", field(3, 1))), "attribute that is there twice")
    hidden = onnx_of(graph(), field(25, field(10, "f") + field(7, onnx_node("EPContext", "com.microsoft", *beside))))
    refused(tmp_path, hidden, "a function with a vendor's compiled graph")


@pytest.mark.attack("ONNX external data with absurd offsets")
@pytest.mark.parametrize("number", ["-1", "1e9", "0x10", " 5", "+5", "9" * 19, "", "٣"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_a_position_that_is_no_number_is_refused(tmp_path: Path, key: str, number: str) -> None:
    refused(tmp_path, onnx(**{key: number}), "is no position or length")


@pytest.mark.attack("ONNX tensor that contradicts itself")
@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (onnx_weights() + field(13, field(1, "location") + field(2, "other")), "says twice"),
        (onnx_weights(offset="0") + field(13, field(1, "offset") + field(2, "8")), "says twice"),
        (field(1, 4) + field(14, 1), "does not say where"),
    ],
)
def test_a_tensor_that_says_two_places_or_none_is_refused(tmp_path: Path, tensor: bytes, why: str) -> None:
    refused(tmp_path, onnx_of(graph(weights=[tensor])), why)


def nested(depth: int) -> bytes:
    inner = graph(onnx_node())
    for _ in range(depth):
        inner = graph(onnx_node("If", "", attribute("t", field(6, inner))))
    return onnx_of(inner)


MANY = b"".join(field(1, field(5, b"") * 100) for _ in range(10_000))


@pytest.mark.attack("ONNX that is a protobuf bomb")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no graph"),
        (b"x", "no protobuf"),
        (b"\x80" * 64, "no protobuf"),
        (b"\x00\x00", "no protobuf"),
        (b"\x3b", "no protobuf"),  # a group, of which ONNX has none
        (b"\x3a" + varint(1 << 40) + b"x", "behind the end"),
        (b"\x3a" + varint((1 << 64) - 1), "behind the end"),
        (b"\x39\x00", "ends within a field"),
        (field(7, b"\x0a\xff\x01x"), "behind the end"),
        (nested(40), "nested more than 64 deep"),
        (field(7, field(1, field(5, b"") * 1000)), "more than 256"),
        (field(7, field(1, field(7, "a") * 1000)), "more than 4 times"),
        (field(7, field(5, field(13, b"") * 1000)), "more than 256"),
    ],
)
def test_a_file_that_is_no_graph_or_a_bomb_is_refused_cheaply(tmp_path: Path, data: bytes, why: str) -> None:
    assert read(tmp_path, nested(5))
    refused(tmp_path, data, why)
    tracemalloc.start()
    with pytest.raises(FileUnsafe):
        onnx_graph.read(tmp_path / "model.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


# In a process of its own, whose memory tells: to trace every allocation of a million steps takes half a minute.
COST = """
import json, pathlib, resource, sys
from edgewright_contract.model_files import FileUnsafe, onnx_graph
def used():
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_maxrss << 10, now.ru_utime + now.ru_stime
bytes_before, began = used()
try:
    onnx_graph.read(pathlib.Path(sys.argv[1]))
    why = ""
except FileUnsafe as error:
    why = str(error)
bytes_after, ended = used()
print(json.dumps([why, bytes_after - bytes_before, ended - began]))
"""


@pytest.mark.attack("ONNX that is a protobuf bomb")
@pytest.mark.bounds
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08\x01" * (1 << 21), "larger than any model's"),
        (field(7, MANY), "larger than any model's"),
        (onnx_of(graph(weights=[onnx_weights(f"{n}") for n in range(10_001)])), "more than 10,000"),
    ],
)
def test_the_largest_bomb_is_refused_cheaply(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    asked = subprocess.run([sys.executable, "-c", COST, str(path)], capture_output=True, text=True, check=True)
    said, more_bytes, seconds = json.loads(asked.stdout)
    assert why in said
    assert more_bytes < 8 << 20
    # A million steps take three seconds, and twice that where a neighbour shares the processor's core.
    assert seconds < 15


def test_weights_of_many_gigabytes_inside_the_file_are_not_read(tmp_path: Path) -> None:
    size = 1 << 36
    tensor = field(1, 4) + field(2, 1) + field(8, "w") + b"\x4a" + varint(size)
    body = field(2, "g") + field(1, onnx_node()) + field(5, ELSEWHERE) + b"\x2a" + varint(len(tensor) + size) + tensor
    head = field(1, 10) + b"\x3a" + varint(len(body) + size) + body
    path = tmp_path / "model.onnx"
    path.write_bytes(head)
    with open(path, "r+b") as file:
        file.truncate(len(head) + size)  # a hole, which costs no disk
    began = time.process_time()
    assert onnx_graph.read(path).external == {"evil.data": 0}
    assert time.process_time() - began < 1
