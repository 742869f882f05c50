"""Which device serves what, and manifests whose parts contradict each other."""

from __future__ import annotations

import pytest

from edgewright_contract import release
from edgewright_controller.manifest import Assignment, ManifestError, parse
from edgewright_controller.manifest.assignment import MAX_PROBES_BYTES
from tests.controller.small_fleet import TEXT, edited, manifest, refusal

GROUP = "[groups.everyone]"
JETSON_02 = '[devices.jetson-02]\nprofile = "jetson"'
SPEAKS = "[probes.speaks]"
SECOND_MODEL = '[models.tiny]\nsource = "tiny"\n'
MATCH_OSLO = 'match = { labels = { site = "oslo" } }'


def test_every_device_gets_its_groups_model_and_its_own_profile() -> None:
    assert manifest().assignments() == {
        "jetson-01": Assignment("jetson-01", "smollm2", "jetson", ("speaks",)),
        "jetson-02": Assignment("jetson-02", "smollm2", "jetson", ("speaks",)),
        "mac-01": Assignment("mac-01", "smollm2", "mac", ("speaks",)),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"mac-01"]', '"mac-1"]', 'groups.everyone.devices[2]: there is no device "mac-1"; did you mean "mac-01"?'),
        ('"mac-01"]', '"mac-01", "mac-01"]', 'groups.everyone.devices[3]: "mac-01" is listed twice'),
        (
            'model = "smollm2"',
            'model = "smolm2"',
            'everyone.model: there is no model "smolm2"; did you mean "smollm2"?',
        ),
        ('model = "smollm2"', 'model = "smollm2"\nprofile = "jetsen"', 'no profile "jetsen"; did you mean "jetson"?'),
        ('probes = ["speaks"]', 'probes = ["speak"]', 'probes[0]: there is no probe "speak"; did you mean "speaks"?'),
        ('profile = "mac"', 'profile = "mc"', 'devices.mac-01.profile: there is no profile "mc"; did you mean "mac"?'),
        ('profile = "mac"', 'profile = "mac"\nmodel = "zzz"', 'no model "zzz"; there is only smollm2'),
        ('profile = "mac"', "", "devices.mac-01: has no profile: it names none, nor does a group, and none matches"),
        (', "mac-01"]', "]", "devices.mac-01: is in no group and names no model; add one, or say serve = false"),
        ('prompt = "Say hello."', 'prompt = "x"\nmodels = ["other"]', 'speaks.models[0]: there is no model "other"'),
        ('profile = "mac"', 'model = "smollm2"\nserve = false', "devices.mac-01.serve: is false, yet the device names"),
    ],
)
def test_a_name_that_means_nothing_is_refused(old: str, new: str, message: str) -> None:
    assert message in refusal((old, new))


def test_two_profiles_that_match_one_device_are_both_named() -> None:
    ours = ("options = { context = 1024 }", f"options = {{ context = 1024 }}\n{MATCH_OSLO}")
    unnamed = ('profile = "jetson"\nlabels', "labels")
    assert manifest(ours, unnamed).assignments()["jetson-01"].profile == "jetson"
    theirs = ('accelerator = "metal"', f'accelerator = "metal"\n{MATCH_OSLO}')
    assert "devices.jetson-01: is matched by profiles.jetson and profiles.mac; name its profile" in refusal(
        ours, unnamed, theirs
    )


def test_a_devices_own_profile_wins_over_every_match() -> None:
    theirs = ('accelerator = "metal"', f'accelerator = "metal"\n{MATCH_OSLO}')
    assert manifest(theirs).assignments()["jetson-01"].profile == "jetson"


def test_a_device_in_two_groups_with_different_models_is_refused() -> None:
    second = '[groups.second]\nmodel = "{}"\ndevices = ["mac-01"]\n'
    agreeing = (GROUP, SECOND_MODEL + second.format("smollm2") + GROUP)
    assert manifest(agreeing).assignments()["mac-01"].model == "smollm2"
    differing = (GROUP, SECOND_MODEL + second.format("tiny") + GROUP)
    assert (
        "devices.mac-01: is in groups with different models:"
        " groups.everyone says smollm2 and groups.second says tiny; name its model here"
    ) in refusal(differing)


def test_a_devices_own_model_wins_and_its_groups_probes_for_other_models_are_not_asked() -> None:
    edits = (
        (GROUP, SECOND_MODEL + GROUP),
        ('profile = "mac"', 'profile = "mac"\nmodel = "tiny"'),
        ('prompt = "Say hello."', 'prompt = "Say hello."\nmodels = ["smollm2"]'),
    )
    assert manifest(*edits).assignments()["mac-01"] == Assignment("mac-01", "tiny", "mac", ())


def test_groups_with_different_profiles_are_refused_unless_the_device_names_one() -> None:
    groups = '[groups.second]\nmodel = "smollm2"\ndevices = ["jetson-02"]\nprofile = "mac"\n' + GROUP
    both = (GROUP, groups), ('probes = ["speaks"]', 'probes = ["speaks"]\nprofile = "jetson"')
    assert manifest(*both).assignments()["jetson-02"].profile == "jetson"
    assert "devices.jetson-02: is in groups with different profiles" in refusal(
        *both, (JETSON_02, "[devices.jetson-02]")
    )


def test_a_group_chooses_devices_by_their_labels() -> None:
    second = f'[probes.oslo]\nprompt = "x"\n[groups.oslo]\nmodel = "smollm2"\n{MATCH_OSLO}\nprobes = ["oslo"]\n{GROUP}'
    assigned = manifest((GROUP, second)).assignments()
    assert assigned["jetson-01"].probes == ("oslo", "speaks")
    assert assigned["jetson-02"].probes == ("speaks",)


def test_a_probe_that_names_a_model_is_asked_wherever_it_is_served() -> None:
    edits = ('probes = ["speaks"]\n', ""), ('prompt = "Say hello."', 'prompt = "x"\nmodels = ["smollm2"]')
    assert all(assigned.probes == ("speaks",) for assigned in manifest(*edits).assignments().values())


def test_a_group_cannot_ask_a_probe_that_is_for_other_models() -> None:
    edits = (GROUP, SECOND_MODEL + GROUP), ('prompt = "Say hello."', 'prompt = "x"\nmodels = ["tiny"]')
    assert "groups.everyone.probes[0]: probes.speaks is for other models than smollm2: tiny" in refusal(*edits)


def test_a_device_that_shall_serve_nothing_has_no_assignment() -> None:
    read = manifest((JETSON_02, "[devices.jetson-02]\nserve = false"))
    assert "jetson-02" not in read.assignments()
    assert read.retired == {"jetson-02"}


def test_more_probes_than_a_release_holds_are_refused() -> None:
    def probes(count: int) -> tuple[str, str]:
        entries = [f'[probes.p{number}]\nprompt = "x"\nmodels = ["smollm2"]\n' for number in range(count)]
        return SPEAKS, "".join(entries) + SPEAKS

    assert len(manifest(probes(release.MAX_PROBES - 1)).assignments()["mac-01"].probes) == release.MAX_PROBES
    assert "devices.mac-01: would be asked 33 probes; a release has at most 32" in refusal(probes(release.MAX_PROBES))


def test_probes_that_are_too_long_together_are_refused() -> None:
    entries = [
        f'[probes.p{number}]\nprompt = "{"x" * release.MAX_PROMPT_BYTES}"\nmodels = ["smollm2"]\n'
        for number in range(MAX_PROBES_BYTES // release.MAX_PROMPT_BYTES)
    ]
    assert "bytes of probes; a release has at most 131,072" in refusal((SPEAKS, "".join(entries) + SPEAKS))


def test_probes_are_carried_into_a_release_as_the_contract_has_them() -> None:
    edit = ('prompt = "Say hello."', 'prompt = "Say hello."\nexpect = "hello"\nmax_tokens = 8\ntimeout = "2m"')
    read = manifest(edit)
    assert read.release_probes(read.assignments()["mac-01"]) == (
        release.Probe("speaks", "Say hello.", "hello", "", 8, 120),
    )


def test_what_is_allowed_but_unused_is_a_warning() -> None:
    unused = f'[groups.empty]\nmodel = "smollm2"\nmatch = {{ labels = {{ site = "mars" }} }}\n{SECOND_MODEL}{GROUP}'
    assert manifest().warnings() == ()
    assert manifest((GROUP, unused)).warnings() == (
        "groups.empty has no device",
        "models.tiny is used by no device",
    )


def test_a_fleet_of_thousands_is_read_in_a_few_seconds() -> None:
    devices = "\n".join(f'[devices.d{number}]\nprofile = "jetson"\nmodel = "smollm2"' for number in range(3000))
    assert len(parse(TEXT + devices, file="f").assignments()) == 3003


def test_a_manifest_put_together_in_code_is_checked_as_well() -> None:
    read = manifest()
    broken = read.model_copy(update={"models": {}})
    with pytest.raises(ManifestError, match="there is no model"):
        broken.assignments()
    assert edited() == TEXT
