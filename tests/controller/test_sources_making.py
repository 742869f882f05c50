"""Checkpoints that are made of others, by the real toolchains: a GGUF dequantised, an adapter merged."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile import child
from edgewright_controller.compile.child import Stage
from edgewright_controller.compile.sources.sources import Resolved, SourceRefused
from tests import model_files, models
from tests.controller import source_rig
from tests.controller.source_rig import asked, looked, prepared

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(900)]

RANK, ALPHA = 4, 8
LORA = "base_model.model."


@pytest.fixture(scope="module")
def base() -> Path:
    return models.folder() / "llama"


def _tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(folder / "model.safetensors")
    return found


def _adapter(folder: Path, base: Path, **config: Any) -> dict[str, Any]:
    """An adapter of two modules in each layer; its tensors."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(1)
    tensors = {}
    for name, weights in _tensors(base).items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            module = LORA + name.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, weights.shape[1]) * 0.1
            tensors[f"{module}.lora_B.weight"] = torch.randn(weights.shape[0], RANK) * 0.1
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.1}
    said |= {"target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "somewhere/else"}
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return tensors


async def test_an_adapter_is_merged_rounded_once_and_is_then_a_source_like_any(base: Path, tmp_path: Path) -> None:
    import torch

    tensors = _adapter(tmp_path / "tuned", base, use_rslora=True)
    sources, wanted = source_rig.sources(tmp_path / "state"), asked(base, tmp_path / "tuned")
    before = await looked(sources, wanted)
    assert (before.source, before.known, before.steps) == (None, None, (f"merge {tmp_path / 'tuned'}",))
    merged = await prepared(sources, wanted)
    known, made = _tensors(base), _tensors(merged.folder)
    assert made.keys() == known.keys()
    changed = 0
    for name, weights in known.items():
        module = LORA + name.removesuffix(".weight")
        expected = weights
        if f"{module}.lora_A.weight" in tensors:
            delta = tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
            expected = (weights.float() + ALPHA / RANK**0.5 * delta).to(weights.dtype)
            changed += 1
        assert torch.equal(made[name], expected), name
    assert changed == 4
    assert (merged.folder / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert (merged.folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    after = await looked(sources, wanted)
    assert after.source == merged
    assert after.known is not None
    assert after.known.digest == merged.digest

    # A change of the adapter is another source: what was built of the old one is not taken for it.
    config = tmp_path / "tuned" / "adapter_config.json"
    config.write_text(config.read_text().replace(f'"lora_alpha": {ALPHA}', '"lora_alpha": 16'))
    assert (await looked(sources, wanted)).source is None


async def _gguf(base: Path, folder: Path) -> Path:
    """The base as llama.cpp's converter writes it, without rounding."""
    stage = Stage(child.CHILDREN / "gguf_convert.py", sys.executable, 600)
    request = {"source": str(base), "out": str(folder / "tiny.gguf"), "type": "bf16", "name": "tiny"}
    with (folder / "log").open("wb", buffering=0) as log:
        await child.run(stage, request, folder, log, lambda _done, _what: None)
    return folder / "tiny.gguf"


async def test_a_gguf_becomes_the_checkpoint_that_it_was_made_from(base: Path, tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer

    gguf = await _gguf(base, tmp_path)
    sources = source_rig.sources(tmp_path / "state")
    before = await looked(sources, asked(gguf))
    assert before.steps == (f"dequantise {gguf}",)
    assert "every figure is relative to weights that were rounded" in before.notes[0]
    source = await prepared(sources, asked(gguf))
    assert source.requantised
    assert source.origin.startswith("tiny.gguf sha256:")
    known, made = _tensors(base), _tensors(source.folder)
    assert made.keys() == known.keys()
    assert all(torch.equal(made[name], weights) for name, weights in known.items())
    own, rebuilt = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (base, source.folder))
    for text in ("Hello, world 2026!", "  two\n\nlines", "Grüße 🙂"):
        assert rebuilt.encode(text).ids == own.encode(text).ids
    assert (await looked(sources, asked(gguf))).source == source


async def test_a_gguf_that_transformers_does_not_read_or_nobody_should_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    architecture = model_files.pair("general.architecture", 8, model_files.text("rwkv99"))
    blocks = model_files.pair("rwkv99.block_count", 4, struct.pack("<I", 1))
    parts = [architecture, blocks, *model_files.PAIRS[2:]]
    other.write_bytes(model_files.gguf_of(parts, model_files.TENSORS, model_files.WEIGHTS))
    sources = source_rig.sources(tmp_path / "state")
    with pytest.raises(SourceRefused, match="makes no checkpoint of a GGUF of architecture 'rwkv99'") as refused:
        await sources.prepare(asked(other), Resolved(), lambda *_: None)
    assert refused.value.key == "source"
    assert [path.name for path in (tmp_path / "state" / "sources").iterdir() if path.suffix != ".log"] == []
    other.write_bytes(other.read_bytes()[:200])
    with pytest.raises(SourceRefused, match=r"other\.gguf: .*end"):
        await looked(sources, asked(other))
