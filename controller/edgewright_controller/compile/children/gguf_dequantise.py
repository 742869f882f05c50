"""GGUF → the checkpoint that transformers makes of it: bf16 safetensors, configuration, tokenizer, chat template.

transformers rebuilds the tokenizer from its parts and leaves some of them out. What is known to be left out is put
back; then the tokenizer must give llama.cpp's own ids for texts that show the differences, or it is refused.

Request: {"source": file, "out": folder}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from stage import Say, StageError, run

SPLITS_DIGITS = ("smollm",)
TEXTS = (
    "Hello, world! What's 12345 + 678,90?",
    "  two spaces,\ttabs\n\n\nand lines \r\n   ",
    "def f(x: int) -> str:\n    return f'{x:>08.3f}'  # 100%",
    "Grüße aus Zürich, привет, 你好世界, שלום, 🙂👩‍💻",
    "CamelCase snake_case WE'LL we'll I'm don't",
    " a",
    "a",
)


def dequantise(request: dict[str, Any], say: Say) -> dict[str, Any]:
    source, out = Path(request["source"]), Path(request["out"])
    say(0.0, "loading")
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    fields = GGUFReader(source, "r").fields
    architecture = _field(fields, "general.architecture", "")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise StageError(
            f"transformers makes no checkpoint of a GGUF of architecture {architecture!r}: "
            f"{(str(error).splitlines() or [repr(error)])[0][:300]}; compile from the checkpoint that it was made from"
        ) from error
    say(0.6, "writing")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    file = out / "tokenizer.json"
    if not file.is_file():
        raise StageError(
            "transformers makes no tokenizer.json of it; compile from the checkpoint that it was made from"
        )
    document = json.loads(file.read_text("utf-8"))
    if _field(fields, "tokenizer.ggml.pre", "") in SPLITS_DIGITS:
        document = _split_digits(document)
    if _field(fields, "tokenizer.ggml.add_space_prefix", True) is False:
        document = _without_prefix(document)
    file.write_text(json.dumps(document, ensure_ascii=False, indent=2), encoding="utf-8")
    say(0.9, "comparing tokens")
    _refuse_other_tokens(source, file)
    for path in out.iterdir():
        path.chmod(0o644)
    return {}


def _field(fields: Any, key: str, otherwise: Any) -> Any:
    return fields[key].contents() if key in fields else otherwise


def _split_digits(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer with digits split before the byte-level step."""
    digits = {"type": "Digits", "individual_digits": True}
    before = tokenizer["pre_tokenizer"]
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    if digits in steps:
        return tokenizer
    return tokenizer | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, *steps]}}


def _without_prefix(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer that puts no space before a text, and takes none away behind."""
    before, after = tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")
    if isinstance(before, dict) and before["type"] == "Metaspace":
        tokenizer = tokenizer | {"pre_tokenizer": before | {"prepend_scheme": "never"}}
    if isinstance(after, dict) and after["type"] == "Sequence":
        kept = [step for step in after["decoders"] if step["type"] != "Strip"]
        tokenizer = tokenizer | {"decoder": after | {"decoders": kept}}
    return tokenizer


def _refuse_other_tokens(source: Path, tokenizer: Path) -> None:
    import llama_cpp
    from tokenizers import Tokenizer

    rebuilt = Tokenizer.from_file(str(tokenizer))
    own = llama_cpp.Llama(str(source), vocab_only=True, verbose=False)
    try:
        for text in TEXTS:
            ids = rebuilt.encode(text, add_special_tokens=False).ids
            if ids != own.tokenize(text.encode(), add_bos=False, special=False):
                raise StageError(
                    f"transformers makes another tokenizer of it: {text!r} gives other ids than llama.cpp's; compile "
                    "from the checkpoint that it was made from"
                )
    finally:
        own.close()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(run(dequantise))
