"""Which device is in which wave, for a given manifest and the devices that change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_controller.gates import GatePolicy, HealthPolicy
from edgewright_controller.manifest import Manifest, SelectionError, parse, select
from edgewright_controller.rollout import OnFailure, RolloutPolicy, Then
from edgewright_controller.waves import Changed, PlannedWave, policy_of, waves_of

NAMES = tuple(f"dev-{number}" for number in range(8))
RINGS = {"dev-2": "lab", "dev-5": "early", "dev-7": "early"}


def fleet(rollout: str) -> Manifest:
    devices = "".join(
        f'[devices.{name}]\nprofile = "cpu"\nlabels = {{ ring = "{RINGS.get(name, "late")}" }}\n' for name in NAMES
    )
    return parse(
        f"""
        [fleet]
        name = "demo"
        [models.small]
        source = "small"
        [profiles.cpu]
        runtime = "gguf"
        quantization = "Q4_0"
        accelerator = "cpu"
        memory = "1GB"
        [groups.all]
        model = "small"
        devices = {list(NAMES)}
        [groups.first]
        model = "small"
        devices = ["dev-0", "dev-2"]
        {devices}
        [rollout]
        {rollout}
        """,
        file="fleet.toml",
    )


def planned(rollout: str, *changed: str, online: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Each wave's words, and the numbers of its devices."""
    found = waves_of(fleet(rollout), [Changed(name, name in online) for name in changed or NAMES])
    return [(wave.what, "".join(name.removeprefix("dev-") for name in wave.devices)) for wave in found]


def test_numbers_and_shares_count_all_devices_so_far() -> None:
    assert planned('waves = [1, "50%", "75%", "100%"]') == [
        ("up to 1", "0"),
        ("50%", "123"),
        ("75%", "45"),
        ("100%", "67"),
    ]


def test_a_share_is_of_the_devices_that_change() -> None:
    assert planned('waves = ["50%", "100%"]', "dev-1", "dev-4") == [("50%", "1"), ("100%", "4")]


def test_a_share_takes_at_least_one_device_and_rounds_up() -> None:
    assert planned('waves = ["1%", "51%", "100%"]') == [("1%", "0"), ("51%", "1234"), ("100%", "567")]


def test_online_devices_come_first_then_their_ids_decide() -> None:
    assert planned('waves = [2, "100%"]', online=("dev-6", "dev-3")) == [("up to 2", "36"), ("100%", "012457")]


def test_waves_that_choose_take_what_no_earlier_wave_has() -> None:
    several = 'waves = [{ group = "first" }, { match = { ring = "early" } }, 5, "100%"]'
    assert planned(several) == [("group first", "02"), ("ring=early", "57"), ("up to 5", "1"), ("100%", "346")]


def test_a_chosen_wave_has_only_devices_that_change() -> None:
    several = 'waves = [{ match = { ring = "early" } }, "100%"]'
    assert planned(several, "dev-1", "dev-5") == [("ring=early", "5"), ("100%", "1")]


def test_a_wave_without_a_device_is_dropped() -> None:
    assert planned('waves = [{ match = { ring = "early" } }, 1, "100%"]', "dev-1") == [("up to 1", "1")]
    assert planned('waves = [3, { group = "first" }, "50%", "100%"]') == [
        ("up to 3", "012"),
        ("50%", "3"),
        ("100%", "4567"),
    ]


def test_nothing_to_change_has_no_waves() -> None:
    assert waves_of(fleet('waves = [1, "100%"]'), []) == ()


def test_a_wave_soaks_and_is_followed_as_it_says() -> None:
    several = (
        'soak = "10m"\nwaves = [{ devices = 1, approval = true }, { devices = 2, soak = "1h", pause = true }, "100%"]'
    )
    assert waves_of(fleet(several), [Changed(name) for name in NAMES[:3]]) == (
        PlannedWave(("dev-0",), 600, Then.APPROVAL, "up to 1"),
        PlannedWave(("dev-1",), 3600, Then.PAUSE, "up to 2"),
        PlannedWave(("dev-2",), 600, Then.GO_ON, "100%"),
    )


def test_an_approval_of_a_wave_that_is_dropped_follows_the_wave_before() -> None:
    several = """waves = [
        { devices = 1, pause = true },
        { match = { ring = "lab" }, soak = "1h", approval = true },
        "100%",
    ]"""
    found = waves_of(fleet(several), [Changed("dev-1"), Changed("dev-3")])
    assert found == (
        PlannedWave(("dev-1",), 3600, Then.APPROVAL, "up to 1"),
        PlannedWave(("dev-3",), 0, Then.GO_ON, "100%"),
    )


def test_nothing_is_waited_for_after_the_last_wave_that_is_left() -> None:
    found = waves_of(fleet('waves = [{ devices = 1, approval = true }, "100%"]'), [Changed("dev-4")])
    assert found == (PlannedWave(("dev-4",), 0, Then.GO_ON, "up to 1"),)


@given(
    st.lists(st.sampled_from(NAMES), unique=True),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from(
        [
            'waves = [1, { match = { ring = "early" } }, "30%", { group = "first" }, "90%", "100%"]',
            'waves = [{ group = "all" }, "100%"]',
            "first_wave = 3",
            'first_wave = "100%"',
        ]
    ),
)
def test_every_device_that_changes_is_in_one_wave_and_none_is_empty(
    changed: list[str], online: set[str], rollout: str
) -> None:
    found = waves_of(fleet(rollout), [Changed(name, name in online) for name in changed])
    assert sorted(name for wave in found for name in wave.devices) == sorted(changed)
    assert all(wave.devices for wave in found)


def test_the_policy_is_as_it_is_written() -> None:
    assert policy_of(fleet("").rollout) == RolloutPolicy()
    written = fleet(
        """
        soak = "10m"
        max_failures = 2
        max_failed_percent = 5
        on_failure = "revert"
        device_deadline = "20m"
        step_deadlines = { download = "15m", probe = "1m" }
        patience = "2d"
        deadline = "12h"
        devices_per_minute = 60
        health_ratio = 3
        health_min_requests = 500
        """
    )
    assert policy_of(written.rollout) == RolloutPolicy(
        device_deadline_s=1200,
        gate=GatePolicy(2, 600, 5, HealthPolicy(True, 3, 500)),
        on_failure=OnFailure.REVERT,
        patience_s=172_800,
        step_deadlines_s={"download": 900, "probe": 60},
        deadline_s=43_200,
        devices_per_minute=60,
    )
    assert policy_of(fleet('health = "off"').rollout).gate.health == HealthPolicy(on=False)


def test_devices_are_selected_by_id_and_by_group() -> None:
    manifest = fleet("")
    assert select(manifest, [], []) is None
    assert select(manifest, ["dev-1"], ["first"]) == frozenset({"dev-0", "dev-1", "dev-2"})


def test_a_selection_of_what_there_is_not_is_refused_with_the_near_names() -> None:
    with pytest.raises(SelectionError) as caught:
        select(fleet(""), ["dev-1", "dev-11", "x"], ["frist"])
    assert str(caught.value).splitlines() == [
        'there is no device "dev-11" in the manifest; did you mean "dev-1"?',
        'there is no device "x" in the manifest; there are dev-0, dev-1, dev-2, dev-3, dev-4, dev-5, dev-6, dev-7',
        'there is no group "frist" in the manifest; did you mean "first"?',
    ]


def test_a_group_without_a_device_selects_nobody() -> None:
    manifest = fleet('[groups.none]\nmodel = "small"\nmatch = { ring = "moon" }')
    with pytest.raises(SelectionError, match='group "none" has no device'):
        select(manifest, ["dev-1"], ["none"])
