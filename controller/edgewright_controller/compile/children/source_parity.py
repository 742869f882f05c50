"""Checkpoint folder → what transformers makes of texts and chats with the source's own tokenizer and template.

Request: {"source": folder, "texts": {name: text}, "chats": {name: [message, …]}}
Result: {"ids": {name: [id, …]}, "chats": {name: text}}, with the ids of each chat among the others; a chat that the
source's template refuses (some know no system message) is in neither.
"""

from __future__ import annotations

import sys
from typing import Any

from engine_parity import ask
from stage import Say, run


class Source:
    """The source's tokenizer behind the methods of an engine."""

    name = "transformers"

    def __init__(self, folder: str) -> None:
        # transformers would load torch; a tokenizer has no use for it.
        sys.modules["torch"] = None  # type: ignore[assignment]
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

    def version(self) -> str:
        from importlib.metadata import version

        return version("transformers")

    def render_chat(self, messages: Any) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def encode_chat(self, messages: Any) -> list[int]:
        return self.encode_text(self.render_chat(messages))

    def encode_text(self, text: str) -> list[int]:
        return [int(one) for one in self._tokenizer.encode(text, add_special_tokens=False)]


def parity(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading the source's tokenizer")
    return ask(Source(request["source"]), request["texts"], request["chats"], say)


if __name__ == "__main__":
    sys.exit(run(parity))
