"""A manifest's text: what is accepted, and the one line that each mistake gets."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_controller.manifest import ManifestError, load, parse, read_text
from tests.controller.small_fleet import TEXT, edited, manifest, refusal

Q4 = 'quantization = "Q4_K_M"'
CUDA = 'accelerator = "cuda"'
JETSON_02 = '[devices.jetson-02]\nprofile = "jetson"'
ROLLOUT = ("[probes.speaks]", "[rollout]\n{}\n[probes.speaks]")


def test_a_sound_manifest_is_read_into_values() -> None:
    read = manifest()
    assert read.fleet.name == "demo"
    jetson = read.profiles["jetson"]
    assert (jetson.runtime, jetson.quantization, jetson.accelerator) == ("gguf", "Q4_K_M", "cuda")
    assert jetson.memory_bytes == 8_000_000_000
    assert jetson.runtime_options == {"context": 1024, "parallel": 1}
    assert read.probes["speaks"].timeout_s == 60
    assert read.served_name("smollm2") == "smollm2"


def test_a_misspelt_key_is_named_with_the_near_one_and_its_line() -> None:
    assert refusal((Q4, 'quantisation = "Q4_K_M"')) == (
        'fleet.toml: profiles.jetson.quantisation: unknown key; did you mean "quantization"? (line 10)'
    )


def test_an_unknown_key_without_a_near_one_lists_what_there_is() -> None:
    assert "fleet.colour: unknown key; there are name, timezone" in refusal(
        ('name = "demo"', 'name = "demo"\ncolour = 1')
    )


def test_a_misspelt_table_is_named_with_the_near_one() -> None:
    assert refusal(("[fleet]", "[flete]")) == 'fleet.toml: flete: unknown key; did you mean "fleet"? (line 2)'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (Q4, "quantization = 4", "profiles.jetson.quantization: must be one of F32, F16"),
        (Q4, 'quantization = "q4_k_m"', 'profiles.jetson.quantization: there is no quantization "q4_k_m" here; did'),
        (Q4, 'quantization = "4bit"', 'profiles.jetson.quantization: there is no quantization "4bit" here; there are'),
        (CUDA, 'accelerator = "qnn"', 'no accelerator "qnn" here; there are cpu, cuda, metal, opencl, vulkan'),
        (
            'runtime = "gguf"',
            'runtime = "ggfu"',
            'profiles.jetson.runtime: there is no runtime "ggfu"; did you mean "g',
        ),
        ('runtime = "gguf"\n', "", "profiles.jetson.runtime: missing; one of gguf, mlx, onnx"),
        (
            "context = 1024",
            'context = "1024"',
            'profiles.jetson.options.context: must be a whole number, not text "1024"',
        ),
        (
            "context = 1024",
            "context = 1024.0",
            "profiles.jetson.options.context: must be a whole number, not the number",
        ),
        ("context = 1024", "context = true", "profiles.jetson.options.context: must be a whole number, not true"),
        ("context = 1024", "context = 1", "profiles.jetson.options.context: must be at least 64"),
        ("context = 1024", "contxt = 1024", 'profiles.jetson.options.contxt: unknown key; did you mean "context"?'),
        ("options = {", "recipe = { pure = 1 }\noptions = {", "profiles.jetson.recipe.pure: must be true or false"),
        ("options = {", "recipe = { group_size = 32 }\noptions = {", "jetson.recipe.group_size: unknown key"),
        ('"oslo"', "7", "devices.jetson-01.labels.site: must be text, not the number 7"),
        ('name = "demo"', "", "fleet.name: missing"),
        ('[fleet]\nname = "demo"', "fleet = 3", "fleet: must be a table, not the number 3"),
        ('source = "smollm2"', 'source = ""', "models.smollm2.source: is empty"),
        ('source = "smollm2"', 'source = "hf://model"', "models.smollm2.source: names no repository; write hf://org"),
        ('source = "smollm2"', 'source = "x.gguf"', "models.smollm2: `source` is a .gguf file, whose weights were"),
        ('source = "smollm2"', 'source = "x"\nrequantise = true', "models.smollm2: requantise = true goes with a"),
        ('source = "smollm2"', 'source = "x"\ncredentials = "hub"', "models.smollm2: `credentials` are named, but"),
        ('source = "smollm2"', 'source = "x"\nadapter = "x.gguf"', "models.smollm2: `adapter` must be PEFT's own"),
        ('source = "smollm2"', 'source = "~/model"', 'models.smollm2.source: "~" is not expanded'),
        ('devices = ["jetson-01", "jetson-02", "mac-01"]\n', "", "groups.everyone: has no devices"),
        ('prompt = "Say hello."', 'prompt = ""', "probes.speaks.prompt: is empty"),
        ('prompt = "Say hello."', 'prompt = "x"\nexpect_regex = "["', "probes.speaks.expect_regex: is not a regular"),
        ('prompt = "Say hello."', 'prompt = "x"\nexpect = "a"\nexpect_regex = "a"', "probes.speaks: has both expect"),
        ('prompt = "Say hello."', 'prompt = "x"\ntimeout = 30', "probes.speaks.timeout: must be a duration"),
        ('prompt = "Say hello."', 'prompt = "x"\ntimeout = "2h"', "probes.speaks.timeout: is longer than an hour"),
        ('prompt = "Say hello."', 'prompt = "x"\nmax_tokens = 0', "probes.speaks.max_tokens: must be at least 1"),
        ("[devices.jetson-02]", "[devices.Jetson_02]", 'devices.Jetson_02: "Jetson_02" is not allowed as a name'),
        ("[devices.jetson-02]", '[devices."a\\u001b"]', 'devices."a\\u001b": "a\\u001b" is not allowed as a name'),
        ("[models.smollm2]", f"[models.{'m' * 64}]", "is not allowed as a name; use a to z, 0 to 9 and -"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(old: str, new: str, message: str) -> None:
    assert message in refusal((old, new))


@pytest.mark.parametrize("memory", ['"8 gigs"', "8.5", "0", "-1", '"8gb"', "true", '"99999999TB"', '""'])
def test_a_size_that_is_none_is_refused(memory: str) -> None:
    text = TEXT.replace('"8GB"', memory, 1)
    with pytest.raises(ManifestError, match=r"profiles\.jetson\.memory: must be a size, like"):
        parse(text, file="fleet.toml")


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ('"8GB"', 8 * 10**9),
        ('"16GiB"', 16 * 2**30),
        ('"1.5 GB"', 1_500_000_000),
        ("123", 123),
        ('"512MiB"', 512 * 2**20),
    ],
)
def test_sizes_are_bytes(memory: str, expected: int) -> None:
    assert parse(TEXT.replace('"8GB"', memory, 1), file="f").profiles["jetson"].memory_bytes == expected


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400)])
def test_durations_are_seconds(text: str, seconds: int) -> None:
    old, new = ROLLOUT
    assert manifest((old, new.format(f'device_deadline = "{text}"'))).rollout.device_deadline_s == seconds


def test_a_device_that_stands_twice_is_named_with_its_line() -> None:
    assert refusal((JETSON_02, JETSON_02.replace("02", "01"))) == (
        "fleet.toml: devices.jetson-01: stands in the file twice; remove or rename one (line 25)"
    )


def test_a_key_that_stands_twice_is_named_with_its_table() -> None:
    assert "fleet.name: stands in the file twice" in refusal(('name = "demo"', 'name = "demo"\nname = "other"'))


def test_text_that_is_no_toml_gets_its_line() -> None:
    assert refusal(("[fleet]", "[fleet")).startswith("fleet.toml: is not TOML: expected ']'")


def test_several_problems_come_together() -> None:
    said = refusal((Q4, "quantization = 4"), ('name = "demo"', "name = 1"), ('"oslo"', "7"))
    assert len(said.splitlines()) == 3


def test_contradictions_inside_a_profile_are_refused() -> None:
    assert "options.gpu_layers cannot be used: the accelerator is cpu" in refusal(
        (CUDA, 'accelerator = "cpu"'), ("context = 1024", "context = 1024, gpu_layers = 9")
    )
    assert 'quantization is "prebuilt", so `prebuilt` must name' in refusal((Q4, 'quantization = "prebuilt"'))
    assert '`prebuilt` is named, so quantization must be "prebuilt"' in refusal((Q4, f'{Q4}\nprebuilt = "x.gguf"'))


def test_recipes_that_no_toolchain_makes_are_refused_at_the_profile() -> None:
    mxfp4 = ('quantization = "4bit"', 'quantization = "8bit"\nrecipe = { mode = "mxfp4", group_size = 32 }')
    assert 'profiles.mac.recipe.mode: mxfp4 needs quantization = "4bit"' in refusal(mxfp4)
    onnx = ('runtime = "gguf"', 'runtime = "onnx"'), (Q4, 'quantization = "int4"'), (CUDA, 'accelerator = "openvino"')
    onnx = (*onnx[:1], (Q4, 'quantization = "int4"\nrecipe = { passes = { Gptq = {} } }'), *onnx[2:])
    assert "profiles.jetson.recipe.passes: cannot follow what is exported for openvino" in refusal(*onnx)
    assert "profiles.jetson.recipe.pure: cannot be used with F16" in refusal(
        (Q4, 'quantization = "F16"\nrecipe = { pure = true }')
    )
    prebuilt = (Q4, 'quantization = "prebuilt"\nprebuilt = "a"\nrecipe = { pure = true }')
    assert "profiles.jetson.recipe: a prebuilt artifact is shipped as it is" in refusal(prebuilt)


def test_a_device_can_be_given_by_an_inline_table_and_its_line_is_found() -> None:
    inline = '[devices]\njetson-02 = { profile = "jetson", wrong = 1 }'
    assert "devices.jetson-02.wrong: unknown key" in refusal((JETSON_02, inline))
    assert "(line 26)" in refusal((JETSON_02, inline))


def test_a_line_inside_a_long_text_is_not_taken_for_a_key() -> None:
    prompt = 'prompt = """\n[fleet]\nname = 1\n"""\nmax_tokens = 0'
    assert "probes.speaks.max_tokens: must be at least 1 (line 41)" in refusal(('prompt = "Say hello."', prompt))


def test_paths_start_at_the_manifests_folder() -> None:
    prebuilt = (Q4, 'quantization = "prebuilt"\nprebuilt = "../made/model.gguf"')
    read = manifest(prebuilt).resolve(Path("/srv/fleet"))
    assert read.models["smollm2"].source == "/srv/fleet/smollm2"
    assert read.profiles["jetson"].prebuilt == "/srv/made/model.gguf"
    assert manifest(('"smollm2"\n\n', '"/models/x"\n\n')).resolve(Path("/srv")).models["smollm2"].source == "/models/x"
    far = '"hf://org/model@main"\nadapter = "tuned"\n\n'
    there = manifest(('"smollm2"\n\n', far)).resolve(Path("/srv")).models["smollm2"]
    assert (there.source, there.adapter) == ("hf://org/model@main", "/srv/tuned")


def test_values_cannot_be_changed() -> None:
    read = manifest()
    with pytest.raises(ValueError, match="frozen"):
        read.fleet.name = "other"


def test_profiles_are_values_that_may_stand_in_a_set() -> None:
    matching = ("options = {", 'match = { labels = { site = "oslo" } }\noptions = {')
    profiles = [manifest(matching).profiles["jetson"], manifest(matching).profiles["jetson"]]
    assert len(set(profiles)) == 1
    assert len({*profiles, manifest().profiles["jetson"]}) == 2


def test_a_file_is_read_with_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(TEXT)
    assert load(file).models["smollm2"].source == str(tmp_path / "smollm2")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.toml: cannot be read: No such file"):
        read_text(tmp_path / "none.toml")
    with pytest.raises(ManifestError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[fleet]\nname = "\xe9"\n')
    with pytest.raises(ManifestError, match=r"latin\.toml: is not UTF-8 text \(byte 16\)"):
        read_text(tmp_path / "latin.toml")


def test_a_text_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(ManifestError, match="larger than 4,194,304 bytes"):
        parse("#" * (4 << 20) + "\n", file="fleet.toml")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a." * 5000 + "a = 1"])
def test_text_made_to_break_a_parser_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(text, file="fleet.toml")
    assert len(str(caught.value)) < 1000


def test_a_flood_of_problems_is_cut_short() -> None:
    flood = "\n".join(f"[devices.wrong_{number}]" for number in range(500))
    said = refusal(("[probes.speaks]", f"{flood}\n[probes.speaks]")).splitlines()
    assert len(said) == 51
    assert said[-1] == "fleet.toml: has 450 further problems"


_scalars = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(), st.sampled_from(['"x"', '""', "[]", "{}", "[1]"]))


@settings(max_examples=300, deadline=None)
@given(line=st.integers(0, TEXT.count("\n") - 1), value=_scalars)
def test_any_value_in_any_place_is_accepted_or_refused_in_words(line: int, value: object) -> None:
    lines = edited().splitlines()
    if "=" in lines[line]:
        text = value if isinstance(value, str) else str(value).lower()
        lines[line] = f"{lines[line].split('=')[0]}= {text}"
    with contextlib.suppress(ManifestError):  # any other error is the parser's own
        parse("\n".join(lines), file="fleet.toml")
