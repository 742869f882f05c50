"""What the devices' engines make of texts and chats, against what transformers makes of them with the source.

Two tokens of the artifacts have changed places, and their template has lost a filter: what has to do with those is
found, in each engine, and all the rest is equal.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from edgewright_controller.compile import child
from edgewright_controller.compile.child import Stage
from edgewright_controller.quality import parity
from tests import models

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

TEXTS: Final = {"words": "The pump stopped.", "a script": "Съешь ещё 吾輩 😀", "digits": "7 and 8", "ends": "</s><s>"}
CHATS: Final = {
    "one question": [{"role": "user", "content": "What is a valve?"}],
    "spaces around": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "\n  Hello \n"}],
}
ASKED: Final = {"texts": TEXTS, "chats": CHATS}
FOUND: Final = {"digits", "spaces around", "chat: spaces around"}


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = models.folder() / "llama"
        self.wanted = self.stage("source_parity", {"source": str(self.source), **ASKED})
        assert self.wanted["ids"].keys() == {*TEXTS, *(f"chat: {name}" for name in CHATS)}

    def stage(self, script: str, request: dict[str, Any]) -> dict[str, Any]:
        one = Stage(child.CHILDREN / f"{script}.py", sys.executable, 600.0)
        with (self.folder / f"{script}.log").open("wb") as log:
            return asyncio.run(child.run(one, request, self.folder, log, lambda _done, _say: None))

    def differing(self, got: dict[str, Any]) -> set[str]:
        """Names of what differs; a chat that reaches the model as the same tokens does not."""
        ids = parity.of_ids(self.wanted["ids"], got["ids"])
        same = CHATS.keys() - {one.text.removeprefix("chat: ") for one in ids}
        return {one.text for one in (*ids, *parity.of_chats(self.wanted["chats"], got["chats"], same))}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("parity"))


def test_both_engines_of_a_gguf(lab: Lab) -> None:
    file = lab.folder / "model.gguf"
    lab.stage("gguf_convert", {"source": str(lab.source), "out": str(file), "type": "bf16", "name": "tiny"})
    _plant(file)
    first = lab.stage("gguf_parity", {"artifact": str(file), **ASKED})
    engines = [first, *first["others"]]
    assert [one["engine"] for one in engines] == ["xllamacpp", "llama-cpp-python"]
    assert [lab.differing(one) for one in engines] == [FOUND, FOUND]


def test_the_engine_of_an_mlx_folder(lab: Lab) -> None:
    folder = lab.folder / "mlx"
    lab.stage("mlx_convert", {"source": str(lab.source), "out": str(folder), "arguments": {"dtype": "bfloat16"}})
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    known = tokenizer["model"]["vocab"]
    known["7"], known["8"] = known["8"], known["7"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("| trim", ""))
    assert lab.differing(lab.stage("mlx_parity", {"artifact": str(folder), **ASKED})) == FOUND


def test_a_runtime_that_gives_no_answer_is_told_from_one_that_gives_another(lab: Lab) -> None:
    with pytest.raises(child.StageFailed, match="gguf"):
        lab.stage("gguf_parity", {"artifact": str(lab.source), **ASKED})


def _plant(file: Path) -> None:
    """Change a GGUF's vocabulary and template where they stand, at full length."""
    from gguf import GGUFReader

    reader = GGUFReader(file, "r+")
    tokens = reader.fields["tokenizer.ggml.tokens"]
    places = {bytes(tokens.parts[place]): tokens.parts[place] for place in tokens.data}
    one, other = places[b"7"], places[b"8"]
    one[:], other[:] = other.copy(), one.copy()
    template = reader.fields["tokenizer.chat_template"].parts[-1]
    text = bytes(template).replace(b"| trim", b"      ")
    assert len(text) == len(template)
    assert text != bytes(template)
    template[:] = list(text)
    reader.data.flush()
