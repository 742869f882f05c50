"""The table `rollout`: how it may be written, and the one line that each contradiction gets."""

from __future__ import annotations

import jsonschema
import pytest
import tomli

from edgewright_controller.manifest import Manifest, ManifestError, Timing, json_schema, parse
from edgewright_controller.rollout.window import Window
from tests.controller.small_fleet import edited, manifest, refusal

SCHEMA = jsonschema.Draft202012Validator(json_schema())
OSLO = 'labels = { site = "oslo" }'


def with_rollout(text: str) -> tuple[str, str]:
    return ("[probes.speaks]", f"[rollout]\n{text}\n\n[probes.speaks]")


def sound(text: str) -> Manifest:
    """The fleet with this rollout; the schema that editors use must accept it too."""
    edit = with_rollout(text)
    SCHEMA.validate(tomli.loads(edited(edit)))
    return manifest(edit)


def waves(text: str) -> list[tuple[str, int, str]]:
    """Each wave's words, its soak, and what follows it."""
    rollout = sound(text).rollout
    return [
        (wave.words, rollout.soak_of(wave), "approval" if wave.approval else "pause" if wave.pause else "")
        for wave in rollout.in_waves
    ]


def test_without_a_rollout_one_device_goes_first() -> None:
    assert [wave.words for wave in manifest().rollout.in_waves] == ["up to 1", "100%"]


def test_waves_are_numbers_shares_and_tables() -> None:
    several = """
        soak = "10m"
        waves = [
            1,
            { match = { site = "oslo" }, soak = "1h", pause = true },
            { group = "everyone" },
            { devices = "50%", approval = true },
            "100%",
        ]
    """
    assert waves(several) == [
        ("up to 1", 600, ""),
        ("site=oslo", 3600, "pause"),
        ("group everyone", 600, ""),
        ("50%", 600, "approval"),
        ("100%", 600, ""),
    ]


@pytest.mark.parametrize(
    ("first", "expected"), [("2", ["up to 2", "100%"]), ('"10%"', ["10%", "100%"]), ('"100%"', ["100%"])]
)
def test_a_first_wave_is_short_for_two(first: str, expected: list[str]) -> None:
    assert [words for words, _, _ in waves(f"first_wave = {first}")] == expected


def test_a_match_may_name_its_labels_at_length() -> None:
    short = sound('waves = [{ match = { site = "oslo" } }, "100%"]').rollout
    assert sound('waves = [{ match = { labels = { site = "oslo" } } }, "100%"]').rollout == short
    in_group = ('devices = ["jetson-01", "jetson-02", "mac-01"]', 'devices = ["mac-01"]\nmatch = { board = "orin" }')
    labelled = manifest(in_group, (OSLO, 'labels = { board = "orin" }'), ("[devices.mac-01]", LABELLED))
    assert labelled.members("everyone") == {"jetson-01", "jetson-02", "mac-01"}


LABELLED = '[devices.jetson-02.labels]\nboard = "orin"\n\n[devices.mac-01]'


def test_every_limit_has_its_place() -> None:
    rollout = sound(
        """
        max_failures = 2
        max_failed_percent = 5
        on_failure = "revert"
        device_deadline = "15m"
        step_deadlines = { check_in = "5m", download = "15m" }
        patience = "2d"
        deadline = "12h"
        devices_per_minute = 60
        health_ratio = 3
        health_min_requests = 500
        """
    ).rollout
    assert (rollout.max_failures, rollout.max_failed_percent, rollout.on_failure) == (2, 5, "revert")
    assert rollout.step_deadlines.seconds == {"check_in": 300, "download": 900}
    assert (rollout.patience_s, rollout.deadline_s, rollout.devices_per_minute) == (172_800, 43_200, 60)
    assert (rollout.health, rollout.health_ratio, rollout.health_min_requests) == ("on", 3, 500)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        # waves that do not rise to all
        (
            'waves = ["50%", "10%", "100%"]',
            'rollout.waves[1]: "10%" does not rise above "50%" before it; a wave',
        ),
        ('waves = ["50%", "50%", "100%"]', 'rollout.waves[1]: "50%" does not rise above "50%"'),
        ('waves = ["50%", "100%", "100%"]', 'rollout.waves[2]: "100%" does not rise above "100%"'),
        ('waves = [2, 1, "100%"]', "rollout.waves[1]: 1 does not rise above 2"),
        ('waves = ["90%", 1, "100%"]', 'rollout.waves[1]: 1 does not rise above "90%" before it: of the manifest\'s 3'),
        ('waves = ["10%", "50%"]', 'rollout.waves[1]: is the last wave, and must be "100%"'),
        ("waves = [1]", 'rollout.waves[0]: is the last wave, and must be "100%"'),
        ('waves = ["100%", { match = { site = "oslo" } }]', "rollout.waves[1]: is the last wave, and must be"),
        ("waves = []", "rollout.waves: is empty; name at least 1"),
        ('waves = "100%"', 'rollout.waves: must be a list, not text "100%"'),
        # waves that select nobody
        ('waves = [{ match = { site = "olso" } }, "100%"]', 'selects no device: none has site = "olso"; did you mean'),
        ('waves = [{ match = { sit = "oslo" } }, "100%"]', 'waves[0].match: selects no device: none has a label "sit"'),
        ('waves = [{ match = { site = "oslo", b = "c" } }, "100%"]', 'none has a label "b"; there is only site'),
        (
            'waves = [{ group = "everyon" }, "100%"]',
            'rollout.waves[0].group: there is no group "everyon"; did you',
        ),
        (
            'waves = [{ group = "everyone" }, { match = { site = "oslo" } }, "100%"]',
            "rollout.waves[1].match: selects no device that an earlier wave has not taken; remove this wave",
        ),
        # waves that are none
        ('waves = [0, "100%"]', "rollout.waves[0]: must be a number of devices from 1, or a share"),
        ('waves = ["0%", "100%"]', "rollout.waves[0]: must be a number of devices from 1, or a share"),
        ('waves = [true, "100%"]', "rollout.waves[0]: must be a number of devices from 1, or a share"),
        ('waves = [["10%"], "100%"]', "rollout.waves[0]: must be a table, not a list"),
        ('waves = [{ devices = "110%" }, "100%"]', "rollout.waves[0].devices: must be a number of devices from 1"),
        ('waves = [{ soak = "1h" }, "100%"]', "rollout.waves[0]: must have exactly one of devices, match and group"),
        ('waves = [{ devices = 1, group = "everyone" }, "100%"]', "must have exactly one of devices, match and group"),
        ('waves = [{ devices = 1, match = {} }, "100%"]', "rollout.waves[0].match.labels: missing"),
        ('waves = [{ match = { site = 7 } }, "100%"]', "rollout.waves[0].match.site: must be text, not the number 7"),
        ('waves = [{ devices = 1, sook = "1h" }, "100%"]', 'rollout.waves[0].sook: unknown key; did you mean "soak"?'),
        ('waves = [{ devices = 1, soak = 60 }, "100%"]', "rollout.waves[0].soak: must be a duration with its unit"),
        ('waves = [{ devices = 1, approval = true, pause = true }, "100%"]', "has both approval and pause; keep one"),
        ('waves = [1, { devices = "100%", approval = true }]', "rollout.waves[1].approval: comes after the last wave"),
        ('waves = [1, { devices = "100%", pause = true }]', "rollout.waves[1].pause: comes after the last wave"),
        ('first_wave = 1\nwaves = [1, "100%"]', "rollout.first_wave: cannot stand beside waves; keep one"),
        ("first_wave = 0", "rollout.first_wave: must be a number of devices from 1, or a share"),
        ('first_wave = "101%"', "rollout.first_wave: must be a number of devices from 1, or a share"),
        # times
        (
            'soak = "1h"\ndeadline = "90m"',
            "rollout.deadline: 90m is not longer than the soaks of all waves, 2h",
        ),
        ('soak = "1h"\nfirst_wave = "100%"\ndeadline = "1h"', "rollout.deadline: 1h is not longer than the soaks"),
        ('soak = "2d"\npatience = "1d"', "rollout.patience: 1d is shorter than a soak, 2d; raise it"),
        (
            'waves = [{ devices = 1, soak = "9d" }, "100%"]',
            "rollout.patience: 7d is shorter than a soak, 9d; raise it, or shorten the soak",
        ),
        (
            'step_deadlines = { download = "16m" }',
            "rollout.step_deadlines.download: 16m is longer than device_deadline, 15m; shorten it, or",
        ),
        (
            'step_deadlines = { upload = "1m" }',
            "rollout.step_deadlines.upload: unknown key; did you mean",
        ),
        ('soak = "0s"', "rollout.soak: must be a duration with its unit"),
        # limits
        ("max_failed_percent = 100", "rollout.max_failed_percent: must be at most 99"),
        ("max_failed_percent = -1", "rollout.max_failed_percent: must be at least 0"),
        ("max_failures = -1", "rollout.max_failures: must be at least 0"),
        ("devices_per_minute = 0", "rollout.devices_per_minute: must be at least 1"),
        ('on_failure = "retry"', 'rollout.on_failure: there is no on_failure "retry" here; there are keep, revert'),
        ("health_ratio = 1", "rollout.health_ratio: must be above 1"),
        ("health_ratio = nan", "rollout.health_ratio: must be"),
        ('health_ratio = "2"', 'rollout.health_ratio: must be a number, not text "2"'),
        ('health = "off"\nhealth_ratio = 3', 'rollout.health_ratio: cannot be used: health is "off"'),
        # windows
        ('window = { days = [], start = "01:00", end = "05:00" }', "rollout.window: never opens: it has no days; name"),
        ('window = { start = "01:00", end = "01:00" }', "rollout.window: never opens: it ends when it starts"),
        ('window = { start = "01:00" }', "rollout.window.end: missing"),
        ('window = { start = "1:00", end = "05:00" }', "rollout.window.start: must be a time of day in quotes"),
        ('window = { start = "24:00", end = "05:00" }', "rollout.window.start: must be a time of day in quotes"),
        ('window = { start = 01:00:00, end = "05:00" }', "rollout.window.start: must be a time of day in quotes"),
        ('window = { start = "01:00", end = "25:00" }', "rollout.window.end: must be a time of day in quotes"),
        (
            'window = { days = ["tues"], start = "01:00", end = "05:00" }',
            'rollout.window.days[0]: there is no "tues" here; did you mean "tue"?',
        ),
        ('window = [{ start = "01:00", end = "01:00" }]', "rollout.window[0]: never opens"),
        ("window = []", "rollout.window: is empty; name at least 1"),
        ('window = "1-5"', 'rollout.window: must be hours like "22:00-06:00", or a table with start and end'),
        (
            'patience = "6d"\nwindow = { days = ["sun"], start = "01:00", end = "05:00" }',
            "rollout.patience: 6d is shorter than rollout.window may be shut, 164h, and device_deadline, 15m, together",
        ),
    ],
)
def test_a_rollout_that_contradicts_itself_is_refused_with_its_key_and_what_would_do(wrong: str, said: str) -> None:
    found = refusal(with_rollout(wrong))
    assert said in found
    assert len(found.splitlines()) == 1


def test_several_faults_of_a_rollout_come_together() -> None:
    said = refusal(with_rollout('waves = ["50%", "10%"]\npatience = "1m"\nsoak = "1h"\ndeadline = "1h"'))
    keys = [line.split(": ")[1] for line in said.splitlines()]
    assert keys == ["rollout.waves[1]", "rollout.waves[1]", "rollout.deadline", "rollout.patience"]


def test_a_deadline_that_may_pass_before_a_window_opens_is_warned_of() -> None:
    window = 'window = { start = "01:00", end = "05:00" }'
    assert sound(f'{window}\ndeadline = "21h"').warnings() == ()
    assert sound(f'{window}\ndeadline = "12h"').warnings() == (
        "rollout.deadline: 12h may end before rollout.window opens, which is shut for 20h",
    )


NIGHT, NOON = Window(frozenset(range(7)), 60, 300), Window(frozenset({0, 2}), 720, 780)
NIGHTLY = 'window = { start = "01:00", end = "05:00" }'
AT_NOON = 'window = [{ days = ["mon", "wed"], start = "12:00", end = "13:00" }]'


def test_a_device_has_its_own_zone_else_its_groups_else_the_fleets() -> None:
    def zones(*edits: tuple[str, str]) -> list[str]:
        return [timing.zone for _, timing in sorted(manifest(*edits).timings().items())]

    fleet = ('name = "demo"', 'name = "demo"\ntimezone = "Asia/Tokyo"')
    group = ("[groups.everyone]", '[groups.everyone]\ntimezone = "Europe/Berlin"')
    device = ("[devices.mac-01]", '[devices.mac-01]\ntimezone = "America/New_York"')
    assert zones() == ["UTC"] * 3
    assert zones(fleet) == ["Asia/Tokyo"] * 3
    assert zones(fleet, group, device) == ["Europe/Berlin", "Europe/Berlin", "America/New_York"]


def test_a_device_has_the_windows_of_its_group_else_the_rollouts() -> None:
    assert manifest().timings()["mac-01"] == Timing((), "UTC")
    assert sound(NIGHTLY).timings()["mac-01"] == Timing((NIGHT,), "UTC")
    in_group = manifest(with_rollout(NIGHTLY), ("[groups.everyone]", f"[groups.everyone]\n{AT_NOON}"))
    assert in_group.timings()["mac-01"] == Timing((NOON,), "UTC")


OFFICE = '[groups.office]\nmodel = "smollm2"\ndevices = ["mac-01"]'


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([('name = "demo"', 'name = "demo"\ntimezone = "Europe/Berln"')], 'fleet.timezone: there is no time zone "Eur'),
        ([('name = "demo"', 'name = "demo"\ntimezone = "Europe/Berln"')], 'did you mean "Europe/Berlin"?'),
        ([('name = "demo"', 'name = "demo"\ntimezone = "Europe"')], 'fleet.timezone: there is no time zone "Europe"'),
        ([('name = "demo"', 'name = "demo"\ntimezone = "../x"')], "the names are those of the IANA"),
        (
            [("[devices.mac-01]", '[devices.mac-01]\ntimezone = ""')],
            "devices.mac-01.timezone: there is no time zone",
        ),
        (
            [
                ("[groups.everyone]", '[groups.everyone]\ntimezone = "Europe/Berlin"'),
                ("[probes.speaks]", f'{OFFICE}\ntimezone = "UTC"\n[probes.speaks]'),
            ],
            "devices.mac-01: is in groups with different time zones: groups.everyone says Europe/Berlin and "
            "groups.office says UTC; name its timezone here",
        ),
        (
            [
                ("[groups.everyone]", f"[groups.everyone]\n{NIGHTLY}"),
                ("[probes.speaks]", f"{OFFICE}\n{AT_NOON}\n[probes.speaks]"),
            ],
            "devices.mac-01: is in groups with different windows: groups.everyone says daily 01:00 to 05:00 and "
            "groups.office says mon, wed 12:00 to 13:00; give these groups the same windows",
        ),
        (
            [with_rollout('patience = "1d"'), ("[groups.everyone]", f"[groups.everyone]\n{AT_NOON}")],
            "rollout.patience: 1d is shorter than groups.everyone.window may be shut, 119h, and device_deadline",
        ),
    ],
)
def test_zones_and_windows_that_mean_nothing_or_disagree_are_refused(edits: list[tuple[str, str]], said: str) -> None:
    assert said in refusal(*edits)


def test_a_devices_own_zone_settles_what_its_groups_say() -> None:
    read = manifest(
        ("[groups.everyone]", '[groups.everyone]\ntimezone = "Europe/Berlin"'),
        ("[probes.speaks]", f'{OFFICE}\ntimezone = "UTC"\n[probes.speaks]'),
        ("[devices.mac-01]", '[devices.mac-01]\ntimezone = "Asia/Tokyo"'),
    )
    assert read.timings()["mac-01"].zone == "Asia/Tokyo"


def test_labels_given_elsewhere_count_and_the_manifest_wins_over_them() -> None:
    text = edited(with_rollout('waves = [{ match = { ring = "early" } }, "100%"]'))
    with pytest.raises(ManifestError, match='none has a label "ring"'):
        parse(text, file="fleet.toml")
    parse(text, file="fleet.toml", labels=None)  # where nobody knows them, they are not missed
    given = {"jetson-01": {"ring": "early", "site": "bergen"}, "stranger": {"ring": "late"}}
    read = parse(text, file="fleet.toml", labels=given)
    assert read.devices["jetson-01"].labels == {"site": "oslo", "ring": "early"}
    assert "stranger" not in read.devices


def test_labels_given_elsewhere_choose_profiles_and_groups_too() -> None:
    edits = (
        ('[devices.jetson-02]\nprofile = "jetson"', "[devices.jetson-02]"),
        ("options = {", 'match = { board = "orin" }\noptions = {'),
        (
            'devices = ["jetson-01", "jetson-02", "mac-01"]',
            'devices = ["jetson-01", "mac-01"]\nmatch = { board = "orin" }',
        ),
    )
    assert "devices.jetson-02: is in no group and names no model" in refusal(*edits)
    parse(edited(*edits), file="fleet.toml", labels=None)
    read = parse(edited(*edits), file="fleet.toml", labels={"jetson-02": {"board": "orin"}})
    assert read.assignments()["jetson-02"].profile == "jetson"
