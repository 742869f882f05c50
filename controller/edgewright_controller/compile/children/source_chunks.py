"""Checkpoint folder → texts in chunks of token ids, by the source's own tokenizer.

What the tokenizer puts in front of a text (a beginning of sequence) stands in front of each chunk, because many models
compute nothing that makes sense without it. What is left of a text behind its last whole chunk is not used, unless it
is all that there is.

Request: {"source": folder, "texts": {name: text}, "tokens": of a chunk}
Result: {"chunks": {name: [[id, …], …]}}
"""

from __future__ import annotations

import sys
from typing import Any

from stage import Say, StageError, run


def chunks(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading the source's tokenizer")
    # transformers would load torch; a tokenizer has no use for it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["source"], trust_remote_code=False)
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    before = whole[: whole.index(bare[0])] if bare and bare[0] in whole else []
    length = request["tokens"] - len(before)
    cut = {}
    for name, text in request["texts"].items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) < 2:
            raise StageError(f"the source's tokenizer makes {len(ids)} tokens of a text of {len(text):,} characters")
        starts = range(0, max(1, len(ids) - length + 1), length)
        cut[name] = [[*before, *ids[start : start + length]] for start in starts]
    return {"chunks": cut}


if __name__ == "__main__":
    sys.exit(run(chunks))
