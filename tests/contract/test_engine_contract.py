"""What a parent believes of an engine's answers."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright_contract import engine
from edgewright_contract.engine import EngineReplyError, EngineSpec

INFO = {
    "engine": "xllamacpp",
    "version": "1",
    "accelerator": "cpu",
    "device": "CPU",
    "layers": 31,
    "layers_offloaded": 0,
    "context": 1024,
    "capabilities": ["logits"],
}


def test_a_spec_is_one_json_document() -> None:
    document = EngineSpec("gguf", "/a", "m", "cpu", {"context": 1024}).to_json()
    assert document == {
        "runtime": "gguf",
        "artifact": "/a",
        "model": "m",
        "accelerator": "cpu",
        "options": {"context": 1024},
        "memory_bytes": 0,
    }


def test_sound_answers_are_read() -> None:
    assert engine.listening({"port": 1, "openai_port": 65535}).openai_port == 65535
    assert engine.info(INFO).capabilities == ("logits",)
    assert engine.info({**INFO, "news": 1}).layers == 31  # a newer engine may say more
    assert engine.memory({"rss_bytes": 5, "vram_bytes": 0}).rss_bytes == 5


@pytest.mark.parametrize("document", [None, [], {}, {"port": 1}, {"port": 0, "openai_port": 1}, {"port": 1 << 16}])
def test_a_first_line_without_two_ports_is_refused(document: Any) -> None:
    with pytest.raises(EngineReplyError):
        engine.listening(document)


@pytest.mark.parametrize(
    "change", [{"layers": "31"}, {"layers": -1}, {"layers": True}, {"engine": None}, {"device": "x" * 201}]
)
def test_an_answer_of_other_types_names_the_key(change: dict[str, Any]) -> None:
    with pytest.raises(EngineReplyError, match=next(iter(change))):
        engine.info({**INFO, **change})


@pytest.mark.parametrize("capabilities", [None, "logits", [1]])
def test_capabilities_are_a_list_of_names(capabilities: Any) -> None:
    with pytest.raises(EngineReplyError, match="capabilities"):
        engine.info({**INFO, "capabilities": capabilities})
