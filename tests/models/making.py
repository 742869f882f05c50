"""Makes test models: python making.py FOLDER [NAME …], under an interpreter with torch, transformers and sentencepiece.

Weights are random from a fixed seed, or trained for a few seconds on the reference pages that come with Python: no
model hub is asked. All have one tokenizer, learned from the same pages by sentencepiece. llama.cpp's converter knows a
byte-level tokenizer only by a hash of what it gives, so that no new one can be made that it takes; of sentencepiece it
takes any.

The scale of the random weights is chosen so that attention attends to something, and rounding them costs about as much
as it costs a real model: a fault then reaches the logits, and an honest 4-bit build stays inside its limits.
"""

from __future__ import annotations

import io
import json
import os
import pydoc_data.topics
import random
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

SEED: Final = 20260711
VOCABULARY: Final = 1024
ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] | trim + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Whose texts begin with no token of their own; of the others the template writes it, as theirs do.
NO_BEGINNING: Final = ("qwen2", "qwen3")

# 64 wide and 2 deep, unless the architecture needs more: every sixth layer of a Gemma 3 looks at all of the text.
_SMALL: Final = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_BASE: Final = {"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "llama": _SMALL | _BASE,
    "qwen3": _SMALL | {"rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}, "rms_norm_eps": 1e-6},
    "gemma3": _SMALL
    | {
        "num_hidden_layers": 6,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 16,
        "sliding_window": 64,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": {"rope_theta": 1000000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
        },
    },
    "phi3": _SMALL
    | {
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "original_max_position_embeddings": 2048,
        "sliding_window": None,
        "rope_parameters": {"rope_theta": 20000.0, "rope_type": "default", "partial_rotary_factor": 1.0},
    },
    "mistral": _SMALL | {"tie_word_embeddings": False, "sliding_window": None} | _BASE,
    # What else is often met, and is easily lost on the way: scaled positions, a head that is rotated in part, biases,
    # an activation that runtimes have no word for, a window in all layers.
    "llama31": _SMALL
    | {
        "rope_parameters": {
            "rope_theta": 500000.0,
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    # Wider heads: onnxruntime rotates a multiple of 16 numbers of each.
    "phi4": _SMALL
    | {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "pad_token_id": 0,
        "original_max_position_embeddings": 2048,
        "sliding_window": None,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.75},
    },
    "qwen2": {key: value for key, value in _SMALL.items() if key != "head_dim"} | _BASE,
    "llama_gelu": _SMALL | {"hidden_act": "gelu"} | _BASE,
    "mistral_window": _SMALL | {"tie_word_embeddings": False, "sliding_window": 64} | _BASE,
    # Rows of 256, so that llama.cpp's K-quants need no other type.
    "trained": _SMALL | _BASE | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 64},
}
_CLASSES: Final = {
    "llama": "Llama",
    "qwen3": "Qwen3",
    "gemma3": "Gemma3",
    "phi3": "Phi3",
    "mistral": "Mistral",
    "llama31": "Llama",
    "phi4": "Phi3",
    "qwen2": "Qwen2",
    "llama_gelu": "Llama",
    "mistral_window": "Mistral",
    "trained": "Llama",
}
# About half a minute of one processor.
STEPS: Final = 200
BATCH: Final = 4
LENGTH: Final = 96


def pages() -> list[str]:
    """Lines of prose and code: Python's own reference."""
    text = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    return [line for line in text.split("\n") if line.strip()]


def tokenizer(folder: Path, name: str) -> None:
    """tokenizer.model, as sentencepiece learned it, and the same for transformers, with a chat template."""
    import sentencepiece
    from transformers import AutoTokenizer

    made, begins = io.BytesIO(), name not in NO_BEGINNING
    with tempfile.TemporaryDirectory() as scratch:
        # Into memory: a file's name would be part of what is written.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(pages()),
            model_writer=made,
            vocab_size=VOCABULARY,
            model_type="bpe",
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            num_threads=1,
            minloglevel=1,
            pad_id=-1,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            control_symbols=list(ROLES),
        )
        Path(scratch, "tokenizer.model").write_bytes(made.getvalue())
        settings = {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": begins,
            "add_eos_token": False,
            "add_prefix_space": False,
            "additional_special_tokens": list(ROLES),
        }
        Path(scratch, "tokenizer_config.json").write_text(json.dumps(settings))
        ours = AutoTokenizer.from_pretrained(scratch)
    ours.chat_template = ("{{ bos_token }}" if begins else "") + TEMPLATE
    ours.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(made.getvalue())
    # Which folder it was read from does not belong into a model.
    file = folder / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(file.read_text()).items() if not key.startswith(("is_", "local_"))}
    # The converter of llama.cpp takes these from here.
    file.write_text(json.dumps(kept | {"add_bos_token": begins, "add_eos_token": False}, indent=2, sort_keys=True))


def random_model(name: str) -> Any:
    """The architecture with random weights; norms are near 1, each weight another, so that none may be exchanged."""
    import torch
    import transformers

    config_class = "Gemma3TextConfig" if name == "gemma3" else f"{_CLASSES[name]}Config"
    config = getattr(transformers, config_class)(**CONFIGS[name], initializer_range=0.16)
    torch.manual_seed(SEED)
    model = getattr(transformers, f"{_CLASSES[name]}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trained_model(folder: Path) -> Any:
    """A Llama that has read a few pages: its logits are peaked, and rounding costs it what it costs a real model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    ids = AutoTokenizer.from_pretrained(folder)("\n".join(pages()), add_special_tokens=False)["input_ids"]
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**CONFIGS["trained"], initializer_range=0.04))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=STEPS, pct_start=0.1)
    draw = random.Random(SEED)
    for step in range(STEPS):
        starts = [draw.randrange(len(ids) - LENGTH) for _ in range(BATCH)]
        batch = torch.tensor([[1, *ids[start : start + LENGTH - 1]] for start in starts])
        loss = model(batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0 or step == STEPS - 1:
            print(f"step {step}: loss {loss.item():.3f}", file=sys.stderr)
    return model


def make(name: str, folder: Path) -> None:
    """The checkpoint of this name in `folder`, in bf16 as they are published."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    tokenizer(folder, name)
    model = trained_model(folder) if name == "trained" else random_model(name)
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    for wanted in sys.argv[2:] or CONFIGS:
        make(wanted, Path(sys.argv[1], wanted))
