"""A whole artifact by its files: honest ones pass, and what one file says of another is believed only within."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract import digest
from edgewright_contract.model_files import ArtifactUnsafe, chat_template, gguf_header, rules
from tests import model_files
from tests.model_files import GENAI, PAIRS, TEMPLATE, TENSORS, WEIGHTS, field, gguf_of, onnx, onnx_of, pair, text

Files = dict[str, bytes]


def check(folder: Path, runtime: str, files: Files) -> None:
    """As both ends do."""
    places = {}
    for name, data in files.items():
        places[name] = folder / name
        places[name].parent.mkdir(parents=True, exist_ok=True)
        places[name].write_bytes(data)
    rules.check_names(places, runtime)
    rules.check_contents(places)


def refused(folder: Path, runtime: str, changed: Files, why: str) -> None:
    honest = model_files.artifact(runtime)
    check(folder, runtime, honest)
    with pytest.raises(ArtifactUnsafe, match=why):
        check(folder, runtime, honest | changed)


def genai(change: Callable[[dict[str, Any]], object]) -> Files:
    config = json.loads(json.dumps(GENAI))
    change(config["model"]["decoder"])
    return {"genai_config.json": json.dumps(config).encode()}


def tokenizer(**more: Any) -> Files:
    return {"tokenizer_config.json": json.dumps({"tokenizer_class": "TokenizersBackend", **more}).encode()}


@pytest.mark.parametrize("runtime", ["gguf", "mlx", "onnx"])
def test_an_honest_artifact_passes(tmp_path: Path, runtime: str) -> None:
    more = {"README.md": "Ein Modell: süß\n".encode(), "LICENSE": b"MIT", "vocab.json": b'{"a": 0}'}
    more |= {
        "tokenizer.model": field(1, field(1, "a") + b"\x15\0\0\0\0") + field(2, b""),
        "generation_config.json": b"{}",
    }
    check(tmp_path, runtime, model_files.artifact(runtime) | more)


def test_an_honest_onnx_artifact_may_have_weights_and_vendors_files_of_any_bytes(tmp_path: Path) -> None:
    context = field(1, "ep_cache_context") + field(4, "npu.bin"), field(1, "embed_mode") + field(3, 0)
    node = model_files.onnx_node("EPContext", "com.microsoft", *context)
    vendors = {"npu.onnx": onnx_of(model_files.onnx_graph(node)), "npu.bin": b"MZ" + bytes(99), "npu.xml": b"<net/>"}
    weights = {"model.onnx.data": b"\x80\x02" + bytes(14)}
    check(tmp_path, "onnx", model_files.artifact("onnx") | vendors | weights)


@pytest.mark.attack("code among an artifact's files")
@pytest.mark.parametrize("runtime", ["gguf", "mlx", "onnx"])
@pytest.mark.parametrize(
    "name",
    [
        *("modeling.py", "tokenization.pyc", "hook.so", "hook.dll", "hook.dylib", "run.sh", "model.pt", "model.pkl"),
        *("model.ckpt", "model.pth", "a.zip", "a.tar.gz", "a.h5", "a.npz", "a.exe", "setup.cfg", "a.pyd", "Makefile"),
        *("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "adapter_model.bin", "training_args.bin", "a.ort"),
    ],
)
def test_a_kind_of_file_that_can_run_is_refused_by_its_name(tmp_path: Path, runtime: str, name: str) -> None:
    refused(tmp_path, runtime, {name: b"data"}, f"^{name}: (files of this kind|a loader would take)")


@pytest.mark.attack("reference to code in settings")
@pytest.mark.parametrize("runtime", ["gguf", "mlx", "onnx"])
@pytest.mark.parametrize(
    "setting",
    [
        {"auto_map": {"AutoModel": "modeling.Evil"}},
        {"a": [{"b": {"auto_map": None}}]},
        {"model_file": "evil.py"},
        {"custom_pipelines": {"x": {"impl": "evil.py"}}},
        {"trust_remote_code": True},
        {"custom_ops_library": "evil.so"},
    ],
)
def test_settings_that_refer_to_code_are_refused(tmp_path: Path, runtime: str, setting: dict[str, Any]) -> None:
    document = json.dumps(setting).encode()
    for name in ("config.json", "tokenizer_config.json", "sub/any.json"):
        refused(tmp_path, runtime, {name: document}, f"{name}: .*refers to code")


@pytest.mark.attack("settings that name a file elsewhere")
@pytest.mark.parametrize("value", ["/etc/passwd", "../../x", "C:\\x", "missing.json", "\\\\server\\share", "a\0b"])
@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "merges_file"])
def test_a_tokenizers_file_elsewhere_is_refused(tmp_path: Path, key: str, value: str) -> None:
    check(tmp_path, "mlx", model_files.artifact("mlx") | tokenizer(**{key: "tokenizer.json"}))
    refused(tmp_path, "mlx", tokenizer(**{key: value}), f"tokenizer_config.json: {key}: .*(no plain path|no file)")


@pytest.mark.attack("settings that are not plain JSON")
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'\xff\xfe{\x00}\x00', "not"),
        ('{"a": 1}'.encode("utf-16"), "not"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b"[" * 200_000, "not JSON|more parts"),
        (b"[" + b"[]," * 300_000 + b"[]]", "more parts"),
        (b'{"a": "' + b"x" * (17 << 20) + b'"}', "larger than any file of settings"),
        (b'{"auto": 1, "auto": 2}', "'auto' is there twice"),
        (b'{"a": {"filename": "x", "filename": "/etc/passwd"}}', "'filename' is there twice"),
    ],
)  # fmt: skip
def test_settings_that_readers_could_take_for_another_thing_are_refused(tmp_path: Path, data: bytes, why: str) -> None:
    refused(tmp_path, "mlx", {"config.json": data}, f"config.json: .*({why})")


def test_settings_that_are_a_bomb_cost_little(tmp_path: Path) -> None:
    bomb = b"[" + b"{}," * 130_000 + b"{}]"
    tracemalloc.start()
    began = time.process_time()
    check(tmp_path, "mlx", model_files.artifact("mlx") | {"config.json": bomb})
    assert time.process_time() - began < 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.attack("ONNX external data outside the bundle")
@pytest.mark.parametrize(
    "place",
    [
        *(
            "/etc/passwd",
            "../other/model.data",
            "a/../../x.data",
            "..",
            ".",
            "",
            "C:\\x.data",
            "\\\\server\\x",
            "a\0.data",
        ),
        *(
            "file:///etc/passwd",
            "//etc/passwd",
            "model.onnx.data/",
            "./model.onnx.data",
            "*/_ORT_MEM_ADDR_/*",
            "x" * 5000,
        ),
    ],
)
def test_weights_that_are_said_to_be_outside_are_refused(tmp_path: Path, place: str) -> None:
    refused(tmp_path, "onnx", {"model.onnx": onnx(place)}, "model.onnx: its weights are said to be in .*no plain path")


@pytest.mark.attack("ONNX external data that the bundle does not list")
@pytest.mark.parametrize("place", ["other.data", "sub/model.onnx.data", "MODEL.onnx.data", "model.onnx.data2"])
def test_weights_in_a_file_that_nobody_listed_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "sub").mkdir()
    for planted in ("other.data", "sub/model.onnx.data"):
        (tmp_path / planted).write_bytes(bytes(99))  # on the disk, where a loader would find it
    refused(tmp_path, "onnx", {"model.onnx": onnx(place)}, "said to be in .*: no file of the artifact")


@pytest.mark.attack("ONNX external data beyond its file")
@pytest.mark.parametrize(
    "where",
    [{"length": "17"}, {"offset": "16", "length": "1"}, {"offset": "17"}, {"offset": "9" * 18, "length": "9" * 18}],
)
def test_weights_beyond_the_end_of_their_file_are_refused(tmp_path: Path, where: dict[str, str]) -> None:
    refused(tmp_path, "onnx", {"model.onnx": onnx(**where)}, r"up to byte [\d,]+, which has 16")


def test_a_graph_in_a_folder_has_its_weights_beside_it(tmp_path: Path) -> None:
    within = {"sub/model.onnx": onnx("w.data", length="4"), "sub/w.data": bytes(4)}
    check(tmp_path, "onnx", model_files.artifact("onnx") | within)
    refused(tmp_path, "onnx", {"deep/model.onnx": onnx("w.data")}, "deep/model.onnx: .*no file of the artifact")


@pytest.mark.attack("ONNX compiled graph outside the bundle")
@pytest.mark.parametrize("place", ["/tmp/evil.bin", "../evil.bin", "missing.bin", "C:\\evil.bin"])
def test_a_vendors_compiled_graph_outside_is_refused(tmp_path: Path, place: str) -> None:
    context = field(1, "ep_cache_context") + field(4, place), field(1, "embed_mode") + field(3, 0)
    node = model_files.onnx_node("EPContext", "com.microsoft", *context)
    graph = {"model.onnx": onnx_of(model_files.onnx_graph(node))}
    refused(tmp_path, "onnx", graph, "its compiled graph is said to be in .*: no (plain path|file)")


@pytest.mark.attack("custom-op library in a graph")
def test_a_graph_that_needs_a_library_is_refused_by_name(tmp_path: Path) -> None:
    graph = onnx_of(model_files.onnx_graph(model_files.onnx_node("Run", "com.evil")))
    refused(tmp_path, "onnx", {"model.onnx": graph}, "model.onnx: it needs operators of 'com.evil'")


def session(**options: Any) -> Files:
    return genai(lambda decoder: decoder["session_options"].update(options))


@pytest.mark.attack("custom-op library in onnxruntime-genai's settings")
@pytest.mark.parametrize(
    "changed",
    [
        session(custom_ops_library="evil.so"),
        session(register_custom_ops=["evil.so"]),
        session(config_entries={"ep.library": "libevil.so"}),
        session(config_entries={"any": ["libevil.so.1"]}),
        session(provider_options=[{"qnn": {"backend_path": "evil.dll"}}]),
        session(provider_options=[{"qnn": {"backend_path": "../QnnHtp.dll"}}]),
        session(provider_options=[{"qnn": {"backend_path": "/tmp/libQnnHtp.so"}}]),
        session(provider_options=[{"vitisai": {"config_file": "..\\..\\x"}}]),
        session(provider_options=[{"NvTensorRtRtx": {"trt_extra_plugin_lib_paths": "x"}}]),
        genai(lambda decoder: decoder.update(custom_ops_library="")),
    ],
)
def test_a_library_in_the_settings_of_a_session_is_refused(tmp_path: Path, changed: Files) -> None:
    refused(tmp_path, "onnx", changed, "genai_config.json: .*(refers to code|native library|outside the artifact)")


@pytest.mark.attack("onnxruntime-genai's settings that read or write elsewhere")
@pytest.mark.parametrize(
    "changed",
    [
        session(enable_profiling="/etc/cron.d/x"),
        session(enable_profiling="profile"),
        session(config_entries={"ep.context_file_path": "x"}),
        session(config_entries={"session.model_external_initializers_file_folder_path": ".."}),
        session(optimized_model_filepath="x"),
        session(provider_options=[{"openvino": {"cache_dir": "x"}}]),
        session(log_id="../x"),
        genai(lambda decoder: decoder.update(filename="/srv/other/model.onnx")),
        genai(lambda decoder: decoder.update(filename="../model.onnx")),
        genai(lambda decoder: decoder.update(filename="missing.onnx")),
        genai(lambda decoder: decoder.update(filename="model.onnx.data")),
        genai(lambda decoder: decoder.update(pipeline=[{"a": {"filename": "../model.onnx"}}])),
        genai(lambda decoder: decoder.update(adapter_filename="/etc/passwd")),
    ],
)
def test_a_place_elsewhere_in_the_settings_of_a_session_is_refused(tmp_path: Path, changed: Files) -> None:
    refused(tmp_path, "onnx", changed, "genai_config.json: ")


@pytest.mark.attack("file that is not what its suffix says")
@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("README.md", b"\0\1\2", "not the text"),
        ("merges.txt", bytes(range(256)), "not the text"),
        ("chat_template.jinja", b"\xff\xfe", "not the text"),
        ("chat_template.jinja", b"x" * ((1 << 20) + 1), "a template of 1,048,577 bytes"),
        ("tokenizer.json", b"\x80\x04", "a pickle|not the text"),
        ("tokenizer.json", b"text", "not JSON"),
        ("vocab.json", b"", "not JSON"),
        ("tokenizer.model", b"\x0a\x05hello", "a vocabulary|neither"),
        ("tokenizer.model", b"\x0a\xff\xff\xff\xff\x0f", "neither"),
        ("tokenizer.model", b"\x12\x00", "not|neither|without"),
        ("tokenizer.model", bytes(50), "neither"),
        ("LICENSE", b"\x1b[2J", "not the text"),
        ("vocab.tiktoken", b"\xc0\x80", "not the text"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    if name == "tokenizer.model" and data == b"\x0a\x05hello":
        check(tmp_path, "mlx", model_files.artifact("mlx") | {name: data})  # a piece is all that such a file needs
        data = b"\x0a\x05hello\x9a"
    refused(tmp_path, "mlx", {name: data}, f"{name}: .*({why})")


@pytest.mark.attack("XML that refers to files elsewhere")
@pytest.mark.parametrize(
    "declared",
    [
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b" " * ((1 << 20) - 1) + b"<!DOCTYPE a>",
    ],
)
def test_a_declaration_in_xml_is_refused(tmp_path: Path, declared: bytes) -> None:
    check(tmp_path, "onnx", model_files.artifact("onnx") | {"npu.xml": b'<?xml version="1.0"?><!-- a net --><net/>'})
    refused(tmp_path, "onnx", {"npu.xml": declared + b"<net/>"}, "npu.xml: a declaration")


OTHER = gguf_of([*PAIRS[:4], pair("tokenizer.chat_template", 8, text("other"))], [], b"")


@pytest.mark.attack("two chat templates in one artifact")
@pytest.mark.parametrize(
    ("runtime", "changed", "why"),
    [
        (
            "mlx",
            tokenizer(chat_template="other"),
            "chat templates of chat_template.jinja and tokenizer_config.json differ",
        ),
        ("onnx", tokenizer(chat_template="other"), "differ"),
        ("mlx", tokenizer(chat_template=[{"name": "default", "template": "other"}]), "differ"),
        ("mlx", tokenizer(chat_template=[{"name": "a", "template": "x"}]), "several chat templates"),
        ("mlx", tokenizer(chat_template=[{"name": "default", "template": "x"}] * 2), "several chat templates"),
        ("mlx", tokenizer(chat_template={"default": TEMPLATE}), "is no text"),
        ("mlx", tokenizer(chat_template_type="deepseek_v32"), "differ"),
        ("mlx", {"additional_chat_templates/default.jinja": b"other"}, "takes the place"),
        (
            "gguf",
            {"b.gguf": gguf_of([*PAIRS[:4], pair("tokenizer.chat_template", 8, text("other"))], [], b"")},
            "differ",
        ),
    ],
)
def test_an_artifact_in_which_two_templates_could_count_is_refused(
    tmp_path: Path, runtime: str, changed: Files, why: str
) -> None:
    check(tmp_path, runtime, model_files.artifact(runtime) | tokenizer(chat_template=TEMPLATE))
    refused(tmp_path, runtime, changed, why)


@pytest.mark.parametrize("runtime", ["gguf", "mlx", "onnx"])
def test_the_same_template_has_the_same_digest_in_every_format(tmp_path: Path, runtime: str) -> None:
    files = model_files.artifact(runtime)
    check(tmp_path, runtime, files)
    places = {name: tmp_path / name for name in files}
    assert chat_template.of(places) == digest.of_bytes(TEMPLATE.encode())
    if "chat_template.jinja" in places:
        places["chat_template.jinja"].write_bytes(TEMPLATE.replace("\n", "\r\n").encode())
        assert chat_template.of(places) == digest.of_bytes(TEMPLATE.encode())
        del places["chat_template.jinja"]
        assert chat_template.of(places) == ""


def test_an_artifact_without_a_template_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_of(PAIRS[:4], TENSORS, WEIGHTS))
    assert chat_template.of({"model.gguf": tmp_path / "model.gguf"}) == ""
    assert gguf_header.CHAT_TEMPLATE == "tokenizer.chat_template"


def test_a_model_in_several_files_is_refused_when_a_part_is_missing() -> None:
    parts = [f"model-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    rules.check_names(parts, "gguf")
    for lost in parts:
        with pytest.raises(ArtifactUnsafe, match=f"{lost}: missing, a part of a model in several files"):
            rules.check_names([part for part in parts if part != lost], "gguf")
    with pytest.raises(ArtifactUnsafe, match="model-00001-of-99999"):
        rules.check_names(["model-99999-of-99999.gguf"], "gguf")
