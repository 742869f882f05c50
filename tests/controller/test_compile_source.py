"""A checkpoint is looked at before anything is built, and what must not be touched is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract.model_files import gguf_header, safetensors_header
from edgewright_controller.compile.hashing import Hashes
from edgewright_controller.compile.source import Source, SourceError, inspect, inspect_prebuilt
from tests import model_files
from tests.controller import checkpoints

GRAPH = model_files.onnx_of(model_files.onnx_graph(model_files.onnx_node()))


def test_a_checkpoint_is_described_and_named_by_what_a_build_reads(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "model", README__md=b"words", training_args__bin=b"pickle")
    source = inspect(folder)
    assert source.facts is not None
    assert source.facts.parameters == 40
    assert (source.facts.layers, source.facts.kv_heads, source.facts.head_dim) == (1, 1, 4)
    assert source.facts.dtype == "bf16"
    assert {file.path for file in source.files} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_the_digest_is_of_the_files_not_of_their_place(tmp_path: Path) -> None:
    here = checkpoints.write(tmp_path / "here")
    there = Path(shutil.copytree(here, tmp_path / "elsewhere" / "there"))
    (there / "notes.txt").write_text("not part of a build")
    assert inspect(here).digest == inspect(there).digest
    (there / "tokenizer.json").write_text('{"a": 1}')
    assert inspect(here).digest != inspect(there).digest


def _refused(folder: Path, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        inspect(folder)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "nothing", str(tmp_path / "nothing"), "no such folder")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    _refused(tmp_path / "model.gguf", "not a folder", "prebuilt")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, "not a model", "config.json")


def test_a_checkpoint_of_pickles_only_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "m", pytorch_model__bin=b"\x80\x04")
    inspect(folder)
    (folder / "model.safetensors").unlink()
    _refused(folder, "pytorch_model.bin", "pickle", "safetensors")


@pytest.mark.parametrize("key", ["auto_map", "model_file"])
def test_code_that_comes_with_a_model_is_refused(tmp_path: Path, key: str) -> None:
    folder = checkpoints.write(tmp_path / "m", {key: {"AutoModel": "modeling.Evil"}})
    _refused(folder, "config.json", key, "never run")


def test_code_that_comes_with_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "m", tokenizer_config__json=b'{"auto_map": {"AutoTokenizer": ["x.Y", null]}}')
    _refused(folder, "tokenizer_config.json", "auto_map")


def test_weights_that_are_quantised_already_are_refused(tmp_path: Path) -> None:
    _refused(checkpoints.write(tmp_path / "m", {"quantization_config": {"quant_method": "gptq"}}), "quantised already")


@pytest.mark.parametrize("config", [{"num_hidden_layers": "many"}, {"vocab_size": -1}, {"architectures": []}])
def test_a_config_of_nonsense_is_refused_by_its_key(tmp_path: Path, config: dict[str, Any]) -> None:
    _refused(checkpoints.write(tmp_path / "m", config), "config.json", next(iter(config)))


def _raw(header: object, tail: int = 0) -> bytes:
    data = json.dumps(header).encode()
    return len(data).to_bytes(8, "little") + data + bytes(tail)


_WHOLE = checkpoints.safetensors({"a": [4]})


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "cut off"),
        (b"\xff" * 8 + b"{}", "cut off"),
        (_WHOLE[:-1], "cut off or grew"),
        (_WHOLE + b"x", "cut off or grew"),
        ((4).to_bytes(8, "little") + b"nope", "table"),
        ((4).to_bytes(8, "little") + b"{no}", "not JSON"),
        (_raw([1]), "table"),
        (_raw({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 6]}}, 6), "do not hold"),
        (_raw({"a": {"dtype": "F13", "shape": [4], "data_offsets": [0, 8]}}, 8), "F13"),
        (_raw({"a": {"dtype": "BF16", "shape": [-4], "data_offsets": [0, 8]}}, 8), "whole number"),
        (_raw({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [8, 16]}}, 16), "gaps"),
        (_raw({"a": 3}, 8), "description"),
    ],
)
def test_a_damaged_weights_file_is_refused_by_name(tmp_path: Path, data: bytes, word: str) -> None:
    _refused(checkpoints.write(tmp_path / "m", model__safetensors=data), "model.safetensors", word, "fetch it again")


def test_shards_are_those_that_the_index_names(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    folder = checkpoints.write(
        tmp_path / "m",
        model__safetensors__index__json=json.dumps(index).encode(),
        one__safetensors=checkpoints.safetensors({"a": [4]}),
        two__safetensors=checkpoints.safetensors({"b": [6]}),
    )
    source = inspect(folder)
    assert source.facts is not None
    assert source.facts.parameters == 10
    assert "model.safetensors" not in {file.path for file in source.files}
    (folder / "two.safetensors").write_bytes(checkpoints.safetensors({"c": [6]}))
    _refused(folder, "two.safetensors", "'b'")
    (folder / "two.safetensors").unlink()
    _refused(folder, "two.safetensors", "no such file")


def test_a_change_during_a_build_is_noticed(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "m")
    source = inspect(folder)
    assert all(file.unchanged for file in source.files)
    (folder / "config.json").write_text(json.dumps(checkpoints.CONFIG | {"vocab_size": 5}))
    assert not all(file.unchanged for file in source.files)


def _prebuilt(place: Path, **files: bytes) -> Path:
    place.mkdir()
    for name, data in files.items():
        (place / name.replace("__", ".")).write_bytes(data)
    return place


def test_a_prebuilt_gguf_may_be_one_file_and_gets_the_name_that_engines_look_for(tmp_path: Path) -> None:
    folder = _prebuilt(tmp_path / "g", tuned__gguf=model_files.gguf())
    source: Source = inspect_prebuilt(folder / "tuned.gguf", "gguf")
    assert [file.path for file in source.files] == ["model.gguf"]
    assert source.facts is None


def test_a_prebuilt_folder_must_look_like_its_runtime(tmp_path: Path) -> None:
    onnx = _prebuilt(tmp_path / "o", genai_config__json=b"{}", model__onnx=GRAPH)
    assert len(inspect_prebuilt(onnx, "onnx").files) == 2
    for runtime, word in (("mlx", "config.json"), ("gguf", ".gguf")):
        with pytest.raises(SourceError, match=word):
            inspect_prebuilt(onnx, runtime)


@pytest.mark.parametrize("name", ["weights__pt", "hook__py", "lib__so"])
def test_a_prebuilt_folder_with_code_or_pickles_is_refused(tmp_path: Path, name: str) -> None:
    folder = _prebuilt(tmp_path / "o", genai_config__json=b"{}", model__onnx=GRAPH, **{name: b"x"})
    with pytest.raises(SourceError, match="never shipped"):
        inspect_prebuilt(folder, "onnx")


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    hashes = Hashes(tmp_path / "cache" / "hashes.json")
    first = hashes.of(file)
    hashes.save()

    # The file system says "unchanged", although the bytes are others: only the memory can answer as before.
    file.write_bytes(b"two")
    os.utime(file, (1, 1))
    assert Hashes(tmp_path / "cache" / "hashes.json").of(file) == first
    os.utime(file, (2, 2))
    assert Hashes(tmp_path / "cache" / "hashes.json").of(file) != first


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    hashes = Hashes()
    file.write_bytes(b"one")
    stat = file.stat()
    first = hashes.of(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hashes.of(file) != first


def test_a_damaged_cache_of_hashes_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "hashes.json").write_text("[broken")
    (tmp_path / "file").write_bytes(b"one")
    assert len(Hashes(tmp_path / "hashes.json").of(tmp_path / "file")) == 64


@pytest.mark.attack("pickled checkpoint named as a source")
def test_a_pickle_in_a_checkpoint_is_refused_under_any_name(tmp_path: Path) -> None:
    bomb = pickle.dumps({"weights": [0.5]}, 4)
    inspect(checkpoints.write(tmp_path / "honest"))
    for name in ("model.safetensors", "tokenizer.json", "tokenizer.model", "generation_config.json"):
        folder = checkpoints.write(tmp_path / name, None, **{name.replace(".", "__"): bomb})
        _refused(folder, name)
    only = checkpoints.write(tmp_path / "only", pytorch_model__bin=bomb)
    (only / "model.safetensors").unlink()
    _refused(only, "pytorch_model.bin", "convert the checkpoint to safetensors")


@pytest.mark.attack("source that refers to code")
def test_a_checkpoint_whose_settings_refer_to_code_is_refused_wherever_they_say_so(tmp_path: Path) -> None:
    inspect(checkpoints.write(tmp_path / "honest", tokenizer_config__json=b"{}"))
    for name, said in (
        ("config.json", b'{"architectures": ["A"], "x": {"auto_map": {}}}'),
        ("tokenizer_config.json", b'{"trust_remote_code": true}'),
        ("tokenizer_config.json", b'{"vocab_file": "/etc/passwd"}'),
        ("generation_config.json", b'{"auto_map": {}, "auto_map": null}'),
        ("special_tokens_map.json", b'{"a": {"model_file": "evil.py"}}'),
    ):
        folder = checkpoints.write(tmp_path / f"{name}-{len(said)}", None, **{name.replace(".", "__"): said})
        _refused(folder, name)


@pytest.mark.parametrize("runtime", ["gguf", "mlx", "onnx"])
@pytest.mark.attack("unsafe prebuilt artifact")
def test_a_prebuilt_artifact_is_judged_by_the_devices_own_rules(tmp_path: Path, runtime: str) -> None:
    def at(name: str, **changed: bytes) -> Path:
        files = {path.replace(".", "__"): data for path, data in model_files.artifact(runtime).items()}
        return _prebuilt(tmp_path / name, **files | changed)

    assert inspect_prebuilt(at("honest"), runtime).files
    bad_of = {
        "gguf": (model_files.gguf_of([], [model_files.tensor("w", (32, 4), 0, 1 << 40)], b""), "a tensor lies at"),
        "mlx": (model_files.safetensors(size=7), "cut off or grew"),
        "onnx": (model_files.onnx("../outside.data"), "said to be in '../outside.data'"),
    }
    data, said = bad_of[runtime]
    main = next(name for name in model_files.artifact(runtime) if name.endswith((".gguf", ".safetensors", ".onnx")))
    with pytest.raises(SourceError, match=f"{main}: .*{said}"):
        inspect_prebuilt(at("header", **{main.replace(".", "__"): data}), runtime)
    with pytest.raises(SourceError, match=r"README\.md: a script"):
        inspect_prebuilt(at("script", README__md=b"#!/bin/sh\nid\n"), runtime)
    with pytest.raises(SourceError, match=r"config\.json: auto_map"):
        inspect_prebuilt(at("settings", config__json=b'{"auto_map": 1}'), runtime)


@pytest.mark.attack("link in a prebuilt artifact")
def test_a_link_to_a_file_or_a_folder_in_a_prebuilt_artifact_is_refused(tmp_path: Path) -> None:
    folder = _prebuilt(tmp_path / "p", model__gguf=model_files.gguf())
    assert inspect_prebuilt(folder, "gguf").files
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "notes.txt").write_bytes(b"words")
    (folder / "more").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="more: a link"):
        inspect_prebuilt(folder, "gguf")
    (folder / "more").unlink()
    (folder / "notes.txt").symlink_to(tmp_path / "secret" / "notes.txt")
    with pytest.raises(SourceError, match=r"notes\.txt: a link"):
        inspect_prebuilt(folder, "gguf")


def test_ggmls_types_are_known_as_its_own_library_has_them() -> None:
    gguf = pytest.importorskip("gguf")
    known = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert dict(gguf_header.BLOCKS) == known


def test_the_bounded_readers_take_what_the_real_libraries_write(tmp_path: Path, demo_model: Path) -> None:
    assert sum(safetensors_header.read(demo_model / "model.safetensors").elements.values()) == 134_515_008
    assert inspect(demo_model).facts is not None


@pytest.mark.parametrize(
    ("config", "window", "layers"),
    [
        ({}, 0, 0),
        ({"sliding_window": 16, "use_sliding_window": False}, 0, 0),
        ({"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, 16, 2),
        ({"sliding_window": 16, "model_type": "gemma3_text", "num_hidden_layers": 26}, 16, 22),
        ({"sliding_window": 16, "sliding_window_pattern": 2, "num_hidden_layers": 4}, 16, 2),
        ({"sliding_window": 16, "model_type": "mistral", "num_hidden_layers": 3}, 16, 3),
    ],
)
def test_in_how_many_layers_attention_has_a_window(
    tmp_path: Path, config: dict[str, Any], window: int, layers: int
) -> None:
    facts = inspect(checkpoints.write(tmp_path / "model", {"num_hidden_layers": 3, **config})).facts
    assert facts
    assert (facts.window, facts.windowed_layers) == (window, layers)
