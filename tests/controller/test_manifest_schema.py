"""The JSON Schema that editors use, and its agreement with what is really accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import tomli

from edgewright_controller.compile import recipe, recipe_gguf
from edgewright_controller.manifest import json_schema, load, parse, profiles
from edgewright_controller.manifest.table import Table
from tests.controller.small_fleet import edited, refusal

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
EXAMPLES = sorted(MANIFESTS.glob("*.toml"))
SCHEMA = jsonschema.Draft202012Validator(json_schema())


def test_the_schema_is_one() -> None:
    SCHEMA.check_schema(SCHEMA.schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_read_without_a_warning(path: Path) -> None:
    manifest = load(path)
    assert manifest.assignments()
    assert manifest.warnings() == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_agrees_with_the_schema(path: Path) -> None:
    SCHEMA.validate(tomli.loads(path.read_text()))


def test_the_examples_are_those_that_the_demo_and_the_readers_need() -> None:
    names = {path.name for path in EXAMPLES}
    bad = {"demo-bad-probe.toml", "demo-bad-engine.toml", "demo-bad-bytes.toml"}
    assert names >= {"demo.toml", "demo-next.toml", "fleet.toml", "rollout.toml", *bad}


def test_the_example_of_rollouts_shows_every_key() -> None:
    text = (MANIFESTS / "rollout.toml").read_text()
    shown = tomli.loads(text)["rollout"]
    tables = {"Rollout": [shown], "StepDeadlines": [shown["step_deadlines"]], "WindowHours": shown["window"]}
    tables["Wave"] = [wave for wave in shown["waves"] if isinstance(wave, dict)]
    keys = {**json_schema()["$defs"], "Wave": json_schema()["$defs"]["Wave"]["anyOf"][-1]}
    keys["WindowHours"] = keys["WindowHours"]["anyOf"][-1]
    for name, examples in tables.items():
        left_out = set(keys[name]["properties"]) - {key for example in examples for key in example}
        assert left_out == ({"first_wave"} if name == "Rollout" else set())
    assert "# first_wave = " in text


def test_the_readmes_rollout_is_one_and_says_what_may_be_left_out() -> None:
    text = (MANIFESTS.parent / "README.md").read_text()
    shown = text.split("```toml\n[rollout]\n")[1].split("```")[0]
    labelled = ('labels = { site = "oslo" }', 'labels = { ring = "early" }')
    read = parse(edited(labelled, ("[probes.speaks]", f"[rollout]\n{shown}\n[probes.speaks]")), file="README.md")
    assert len(read.rollout.in_waves) == 4
    assert read.rollout.window is not None


def test_the_demos_manifests_are_one_fleet() -> None:
    demos = [load(path) for path in EXAMPLES if path.name.startswith("demo")]
    assert {demo.fleet.name for demo in demos} == {"demo"}
    assert {tuple(demo.assignments()) for demo in demos} == {("jetson-01", "mac-01", "npu-pc-01")}
    for demo in demos:
        assert {profile.accelerator for profile in demo.profiles.values()} == {"cpu"}
        assert [wave.devices for wave in demo.rollout.in_waves] == ["100%"]


def test_the_demos_releases_differ_from_each_other() -> None:
    made = {
        name: [recipe.recipe_of(profile) for profile in load(MANIFESTS / f"{name}.toml").profiles.values()]
        for name in ("demo", "demo-next", "demo-bad-bytes")
    }
    assert len({recipe for recipes in made.values() for recipe in recipes}) == 9
    engine = load(MANIFESTS / "demo-bad-engine.toml")
    assert all(profile.is_prebuilt for profile in engine.profiles.values())


def test_the_realistic_fleet_uses_cuda_metal_and_the_npu() -> None:
    fleet = load(MANIFESTS / "fleet.toml")
    assert {"cuda", "metal", "qnn"} <= {profile.accelerator for profile in fleet.profiles.values()}
    assert fleet.retired == {"jetson-bergen-02"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('quantization = "Q4_K_M"', 'quantisation = "Q4_K_M"'),
        ('quantization = "Q4_K_M"', 'quantization = "Q4"'),
        ('accelerator = "cuda"', 'accelerator = "qnn"'),
        ("context = 1024", 'context = "1024"'),
        ('prompt = "Say hello."', 'prompt = "x"\ntimeout = 30'),
        ("[devices.jetson-02]", "[devices.Jetson_02]"),
        ('labels = { site = "oslo" }', "labels = { site = 7 }"),
        ("[probes.speaks]", "[rollout]\nwaves = [0]\n[probes.speaks]"),
        ("[probes.speaks]", "[rollout]\nwaves = [{ sook = '1h', devices = 1 }, '100%']\n[probes.speaks]"),
        ("[probes.speaks]", "[rollout]\nwaves = [{ match = { Ring = 'x' } }, '100%']\n[probes.speaks]"),
        ("[probes.speaks]", "[rollout]\nwindow = { start = '25:00', end = '05:00' }\n[probes.speaks]"),
        ("[probes.speaks]", "[rollout]\nwindow = []\n[probes.speaks]"),
        ("[probes.speaks]", "[rollout]\nhealth_ratio = 1\n[probes.speaks]"),
    ],
)
def test_the_schema_refuses_what_the_manifest_refuses(old: str, new: str) -> None:
    SCHEMA.validate(tomli.loads(edited()))
    assert refusal((old, new))
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(tomli.loads(edited((old, new))))


def test_the_schema_explains_every_key() -> None:
    schema = json_schema()
    json.dumps(schema)
    written_short = {name: body["anyOf"][-1] for name, body in schema["$defs"].items() if "anyOf" in body}
    tables = {"Manifest": schema, **schema["$defs"], **written_short}
    silent = [
        f"{table}.{key}"
        for table, body in tables.items()
        for key, value in body.get("properties", {}).items()
        if "description" not in value and "const" not in value and "$ref" not in value
    ]
    assert silent == []


def test_manifest_and_compiler_know_the_same_recipes() -> None:
    known = {
        "gguf": profiles.GgufQuantization,
        "mlx": profiles.MlxQuantization,
        "onnx": profiles.OnnxQuantization,
    }
    for runtime, literal in known.items():
        assert {*recipe.QUANTIZATIONS[runtime], recipe.PREBUILT, profiles.AUTO} == set(get_args(literal))
    tables: dict[str, type[Table]] = {
        "gguf": profiles.GgufRecipe,
        "mlx": profiles.MlxRecipe,
        "onnx": profiles.OnnxRecipe,
    }
    for runtime, table in tables.items():
        # An ONNX recipe's provider follows from the profile's accelerator.
        options = {name: choice for name, choice in recipe.OPTIONS[runtime].items() if name != "provider"}
        assert set(table.model_fields) == set(options)
        # What has one spelling only in a recipe is written in another way in a manifest.
        plain = {name: choice.default for name, choice in options.items() if choice.check is None}
        assert {name: table.model_fields[name].default for name in plain} == plain
    assert get_args(profiles.GgufType) == recipe_gguf.TENSOR_TYPES
