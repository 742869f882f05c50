"""What two releases differ in, in words."""

from __future__ import annotations

from dataclasses import replace

from edgewright_contract.release import Probe, Release
from edgewright_controller.compile.recipe import make
from edgewright_controller.release_difference import differences

SPEAKS = Probe("speaks", "Say hello.", expect="hello")
OLD = Release(
    "tiny", "jetson", "gguf", "a" * 64, "cpu", 1 << 30, {"context": 1024, "chat_template": "c" * 64}, (SPEAKS,)
)
Q4, Q8 = (make("gguf", name).to_json() for name in ("Q4_K_M", "Q8_0"))


def test_a_release_differs_from_itself_in_nothing() -> None:
    assert differences(OLD, OLD, Q4, Q4) == []
    assert differences(OLD, OLD, None, None) == []


def test_artifacts_options_and_recipes_are_told_with_both_values() -> None:
    new = replace(
        OLD,
        artifact="b" * 64,
        memory_bytes=2 << 30,
        options={"context": 2048, "threads": 4, "chat_template": "d" * 64},
    )
    assert differences(OLD, new, Q4, Q8) == [
        "memory_bytes: 1,073,741,824 → 2,147,483,648",
        f"artifact: {'a' * 12} → {'b' * 12}",
        f"options.chat_template: {'c' * 12} → {'d' * 12}",
        "options.context: 1,024 → 2,048",
        "options.threads: not set → 4",
        "recipe.quantization: Q4_K_M → Q8_0",
    ]
    assert "options.threads: 4 → not set" in differences(new, OLD, Q8, Q4)


def test_a_yes_is_not_a_one() -> None:
    one, yes = (replace(OLD, options={"flash": value}) for value in (1, True))
    assert differences(one, yes, Q4, Q4) == ["options.flash: 1 → true"]


def test_probes_that_come_go_or_change_are_told_by_name() -> None:
    new = replace(OLD, probes=(replace(SPEAKS, expect="", max_tokens=32), Probe("counts", "1, 2,\n3?")))
    assert differences(OLD, new, Q4, Q4) == [
        "probes.counts: is asked now: 1, 2,?3?",
        "probes.speaks.expect: hello → none",
        "probes.speaks.max_tokens: 16 → 32",
    ]
    assert "probes.counts: is not asked any more" in differences(new, OLD, Q4, Q4)


def test_an_unknown_recipe_is_said_to_be_so_where_it_would_explain_something() -> None:
    unknown = "recipe: not known of one of them, so what made the artifacts differ is not either"
    assert differences(OLD, replace(OLD, artifact="b" * 64), None, Q4)[-1] == unknown
    assert differences(OLD, replace(OLD, model="other"), None, Q4) == ["model: tiny → other"]
