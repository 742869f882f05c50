"""What a manifest makes of a given world: builds, changes per device, what is held, and what will not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright_contract.release import Release, from_json
from edgewright_controller.manifest import Manifest, load
from edgewright_controller.plan import Kind, Plan, PlanError, plan, release_of
from edgewright_controller.quality.divergence import Divergence
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.tensors import TensorMeasure
from edgewright_controller.world import BuildFact, DeviceFact, InventoryFact, Outcome, RollbackFact, SourceFact, World
from tests.controller.small_fleet import BIG, ENROLLED, SOURCE, TOOLCHAINS, built, manifest

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
DEVICES = ("jetson-01", "jetson-02", "mac-01")
FRESH = World(devices=dict.fromkeys(DEVICES, ENROLLED), sources={"smollm2": SOURCE}, toolchains=TOOLCHAINS)


ROLLED_BACK = RollbackFact("ana", 1_795_892_400_000, "too slow")


def _with_builds(world: World, fleet: Manifest, digits: str = "abcdef") -> World:
    """The world after every build that the manifest needs."""
    missing = plan(fleet, world).missing_builds
    return replace(world, builds={**world.builds, **{b.key: built(d) for b, d in zip(missing, digits, strict=False)}})


def _with_devices(world: World, **facts: DeviceFact) -> World:
    return replace(world, devices={**world.devices, **{name.replace("_", "-"): fact for name, fact in facts.items()}})


def _settled(world: World, made: Plan) -> World:
    """The world after a rollout of the whole plan that succeeded everywhere."""
    devices = dict(world.devices)
    for change in made.to_do:
        devices[change.device] = replace(
            devices[change.device],
            desired_release=change.to_release,
            active_release=change.to_release,
            outcome=Outcome.SUCCEEDED,
        )
    known = {change.to_release: change.release for change in made.changes if change.release}
    return replace(world, devices=devices, releases={**world.releases, **known})


def _kinds(made: Plan) -> Mapping[str, Kind]:
    return {change.device: change.kind for change in made.changes}


def test_devices_with_equal_recipes_share_one_build() -> None:
    made = plan(manifest(), FRESH)
    assert [(b.model, b.profiles, str(b.recipe), b.cached) for b in made.builds] == [
        ("smollm2", ("jetson",), "gguf Q4_K_M", False),
        ("smollm2", ("mac",), "mlx 4bit", False),
    ]
    assert made.missing_builds == made.builds
    assert made.builds[0].size_bytes == pytest.approx(105_453_920, rel=0.02)


def test_profiles_that_differ_only_in_options_share_one_build() -> None:
    twin = (
        '[profiles.twin]\nruntime = "gguf"\nquantization = "Q4_K_M"\naccelerator = "cpu"\nmemory = "4GB"\n'
        '[devices.jetson-02]\nprofile = "twin"'
    )
    made = plan(manifest(('[devices.jetson-02]\nprofile = "jetson"', twin)), FRESH)
    assert [build.profiles for build in made.builds] == [("jetson", "twin"), ("mac",)]


def test_a_device_without_a_model_gets_an_install_whose_release_waits_for_the_build() -> None:
    made = plan(manifest(), FRESH)
    assert set(_kinds(made).values()) == {Kind.INSTALL}
    assert {(c.to_release, c.release, c.note) for c in made.changes} == {("", None, "its build comes first")}


def test_with_all_builds_there_every_change_names_its_release() -> None:
    fleet = manifest()
    made = plan(fleet, _with_builds(FRESH, fleet))
    assert made.missing_builds == ()
    first, second, mac = made.changes
    assert first.release is not None
    assert first.to_release == first.release.digest == second.to_release != mac.to_release
    assert first.release.artifact == "a" * 64
    assert first.release.options == {"context": 1024, "parallel": 1}
    assert [probe.prompt for probe in first.release.probes] == ["Say hello."]


def test_the_release_is_one_that_a_device_accepts() -> None:
    fleet = manifest(('source = "smollm2"', 'source = "smollm2"\nserved_name = "chat"'))
    (change, *_) = plan(fleet, _with_builds(FRESH, fleet)).changes
    assert change.release is not None
    assert from_json(change.release.to_json()) == change.release
    assert change.release.options["served_name"] == "chat"


def test_the_same_manifest_again_changes_nothing() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    world = _settled(world, plan(fleet, world))
    made = plan(fleet, world)
    assert set(_kinds(made).values()) == {Kind.NONE}
    assert (made.to_do, made.missing_builds, made.warnings) == ((), (), ())


def test_another_recipe_updates_the_devices_that_use_it_and_only_those() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    world = _settled(world, plan(fleet, world))
    newer = manifest(('"Q4_K_M"', '"Q8_0"'))
    assert _kinds(plan(newer, world)) == {"jetson-01": Kind.UPDATE, "jetson-02": Kind.UPDATE, "mac-01": Kind.NONE}
    world = _with_builds(world, newer, "012")
    change = plan(newer, world).changes[0]
    assert change.from_release == world.devices["jetson-01"].active_release != change.to_release


def test_other_options_are_another_release_of_the_same_artifact() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    world = _settled(world, plan(fleet, world))
    made = plan(manifest(("context = 1024", "context = 2048")), world)
    assert made.missing_builds == ()
    assert (made.changes[0].kind, made.changes[0].note) == (Kind.UPDATE, "the same artifact with other options")


def test_another_toolchain_builds_again() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    newer = replace(world, toolchains={**TOOLCHAINS, "gguf": {"llama-cpp-python": "0.4"}})
    assert [build.recipe.runtime for build in plan(fleet, newer).missing_builds] == ["gguf"]


def test_a_better_memory_prediction_alone_changes_no_device() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    first = plan(fleet, world)
    old = {c.device: replace(c.release, memory_bytes=1) for c in first.changes if c.release}
    devices = {
        name: replace(ENROLLED, desired_release=r.digest, active_release=r.digest, outcome=Outcome.SUCCEEDED)
        for name, r in old.items()
    }
    world = replace(world, devices=devices, releases={r.digest: r for r in old.values()})
    assert set(_kinds(plan(fleet, world)).values()) == {Kind.NONE}
    other = {**world.releases, "f" * 64: replace(next(iter(old.values())), options={"context": 9})}
    assert set(_kinds(plan(fleet, replace(world, releases=other))).values()) == {Kind.NONE}


def test_a_device_that_is_not_enrolled_is_said_to_be() -> None:
    world = _with_devices(FRESH, mac_01=DeviceFact(enrolled=False))
    change = plan(manifest(), world).changes[2]
    assert change.kind is Kind.UNENROLLED
    assert "edgewright enroll create --device mac-01" in change.note
    unknown = replace(FRESH, devices={})
    assert set(_kinds(plan(manifest(), unknown)).values()) == {Kind.UNENROLLED}


def _world_with_jetson(**fact: object) -> tuple[Manifest, World, Release]:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    release = plan(fleet, world).changes[0].release
    assert release is not None
    facts = {key: release.digest if value == "new" else value for key, value in fact.items()}
    if "held_releases" in facts:
        facts["held_releases"] = frozenset({release.digest})
    world = _with_devices(world, jetson_01=replace(ENROLLED, **facts))  # type: ignore[arg-type]  # names of fields
    return fleet, world, release


def test_a_release_that_was_rolled_back_is_held_until_it_is_asked_for_again() -> None:
    fleet, world, release = _world_with_jetson()
    assert plan(fleet, world).changes[0].kind is Kind.INSTALL
    world = replace(world, rolled_back={release.digest: ROLLED_BACK})
    change = plan(fleet, world).changes[0]
    assert (change.kind, change.to_release) == (Kind.HELD, release.digest)
    assert change.note == (
        f"drift: the manifest says {release.digest[:12]}, it has none; ana rolled that back on 2026-11-28 at "
        "19:00 UTC: too slow; `apply --again` releases it all the same"
    )
    again = plan(fleet, world, again=True).changes[0]
    assert (again.kind, again.lifts_hold) == (Kind.INSTALL, False)


def test_drift_after_a_rollback_says_what_the_device_has_or_returns_to() -> None:
    fleet, world, release = _world_with_jetson(active_release="a" * 64)
    there = {release.digest: replace(ROLLED_BACK, why="")}
    world = _with_devices(world, jetson_01=replace(world.devices["jetson-01"], rolled_back=there))
    first, second, _ = plan(fleet, world).changes
    assert (first.kind, second.kind) == (Kind.HELD, Kind.INSTALL)
    said = f"drift: the manifest says {release.digest[:12]}, {{}}; ana rolled that back on 2026-11-28 at 19:00 UTC"
    assert first.note == said.format("it has aaaaaaaaaaaa") + "; `apply --again` releases it all the same"
    again = plan(fleet, world, again=True).changes[0]
    assert again.note == said.format("it has aaaaaaaaaaaa") + "; released again"
    returning = replace(world.devices["jetson-01"], active_release=release.digest, given_release="b" * 64)
    note = plan(fleet, _with_devices(world, jetson_01=returning)).changes[0].note
    assert note.startswith(said.format("it returns to bbbbbbbbbbbb"))


def test_a_corrected_release_goes_out_after_a_rollback() -> None:
    _, world, release = _world_with_jetson()
    world = replace(world, rolled_back={release.digest: ROLLED_BACK})
    assert plan(manifest(("context = 1024", "context = 512")), world).changes[0].kind is Kind.INSTALL


def test_a_release_that_a_device_holds_is_held_there_only() -> None:
    fleet, world, _ = _world_with_jetson(
        desired_release="new", outcome=Outcome.HELD, held_releases=(), reason="probe speaks: no answer"
    )
    kinds = _kinds(plan(fleet, world))
    assert (kinds["jetson-01"], kinds["jetson-02"]) == (Kind.HELD, Kind.INSTALL)
    assert "failed there before: probe speaks: no answer" in plan(fleet, world).changes[0].note
    assert plan(fleet, world, again=True).changes[0].lifts_hold


def test_a_failure_that_the_device_does_not_hold_is_tried_again() -> None:
    fleet, world, _ = _world_with_jetson(desired_release="new", outcome=Outcome.FAILED, reason="disk full")
    change = plan(fleet, world).changes[0]
    assert (change.kind, change.note) == (Kind.INSTALL, "tries again: disk full")


def test_an_update_that_is_under_way_is_left_alone() -> None:
    fleet, world, _ = _world_with_jetson(desired_release="new", outcome=Outcome.IN_PROGRESS)
    change = plan(fleet, world).changes[0]
    assert (change.kind, change.note) == (Kind.NONE, "under way")


def test_going_back_to_what_a_device_still_serves_settles_what_is_desired() -> None:
    fleet, world, _ = _world_with_jetson(active_release="new", desired_release="b" * 64, outcome=Outcome.FAILED)
    change = plan(fleet, world).changes[0]
    assert (change.kind, change.from_release) == (Kind.UPDATE, change.to_release)


def test_a_device_that_shall_serve_nothing_is_emptied() -> None:
    fleet = manifest(('[devices.jetson-02]\nprofile = "jetson"', "[devices.jetson-02]\nserve = false"))
    serving = _with_devices(FRESH, jetson_02=replace(ENROLLED, active_release="b" * 64, desired_release="b" * 64))
    change = plan(fleet, serving).changes[1]
    assert (change.device, change.kind, change.from_release) == ("jetson-02", Kind.REMOVE, "b" * 64)
    assert change in plan(fleet, serving).to_do
    never_given = _with_devices(FRESH, jetson_02=replace(ENROLLED, generation=7, active_release="b" * 64))
    assert plan(fleet, never_given).changes[1].kind is Kind.REMOVE
    assert plan(fleet, FRESH).changes[1].kind is Kind.NONE


def test_a_device_that_the_manifest_does_not_name_is_left_alone_with_a_warning() -> None:
    world = _with_devices(FRESH, forgotten=replace(ENROLLED, active_release="b" * 64))
    made = plan(manifest(), world)
    assert "forgotten" not in _kinds(made)
    assert made.warnings == (
        "forgotten: in the fleet but not in the manifest; left alone; to take away what it serves, add it with"
        " serve = false",
    )


def test_what_does_not_fit_is_said_in_bytes() -> None:
    small = replace(ENROLLED, inventory=replace(BIG, memory_bytes=100_000_000, disk_free_bytes=50_000_000))
    made = plan(manifest(), _with_devices(FRESH, jetson_01=small))
    assert [(misfit.device, misfit.what.value) for misfit in made.misfits] == [
        ("jetson-01", "memory"),
        ("jetson-01", "disk"),
    ]
    for misfit in made.misfits:
        assert f"needs about {misfit.needed_bytes - misfit.available_bytes:,} bytes more" in misfit.message


def test_what_will_not_fit_a_device_that_is_not_enrolled_is_a_warning_and_holds_up_nobody() -> None:
    fleet = manifest(('memory = "8GB"\noptions', 'memory = "1MB"\noptions'))
    assert [misfit.device for misfit in plan(fleet, FRESH).misfits] == ["jetson-01", "jetson-02"]
    expected = plan(fleet, _with_devices(FRESH, jetson_01=DeviceFact(enrolled=False)))
    assert [misfit.device for misfit in expected.misfits] == ["jetson-02"]
    assert [warning.split(" needs about ")[0] for warning in expected.warnings] == ["jetson-01: memory:"]


def test_the_version_that_is_replaced_counts_during_the_swap() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    world = _settled(world, plan(fleet, world))
    newer = manifest(('"Q4_K_M"', '"Q8_0"'), ('memory = "8GB"\noptions', 'memory = "400MB"\noptions'))
    assert [m.device for m in plan(newer, world).misfits] == ["jetson-01", "jetson-02"]
    assert "for both versions during the swap" in plan(newer, world).misfits[0].message
    assert plan(newer, FRESH).misfits == ()


def test_the_same_artifact_with_other_options_needs_no_disk() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    world = _settled(world, plan(fleet, world))
    full = replace(world.devices["jetson-01"], inventory=replace(BIG, disk_free_bytes=0))
    world = _with_devices(world, jetson_01=full)
    assert plan(manifest(("context = 1024", "context = 512")), world).misfits == ()
    assert [m.what.value for m in plan(manifest(('"Q4_K_M"', '"Q8_0"')), world).misfits] == ["disk"]


def test_what_a_device_lacks_or_has_not_told_is_a_warning() -> None:
    poor = InventoryFact(memory_bytes=8 * 10**9, disk_free_bytes=10**12)
    world = _with_devices(FRESH, mac_01=replace(ENROLLED, inventory=poor), jetson_02=DeviceFact())
    assert plan(manifest(), FRESH).warnings == ()
    assert plan(manifest(), world).warnings == (
        "jetson-02: has not reported its memory and disk; only its profile was checked",
        "mac-01: reports no engine for mlx; there, pip install 'edgewright[agent,mlx]'",
        "mac-01: reports no metal accelerator",
    )


def test_a_context_beyond_the_models_is_a_warning() -> None:
    made = plan(manifest(("context = 1024", "context = 16384")), FRESH)
    assert made.warnings == (
        "profiles.jetson.options.context: 16,384 is more than models.smollm2 was trained for: 8,192",
    )


def test_a_prebuilt_artifact_needs_no_toolchain_and_has_its_own_digest() -> None:
    edits = ('"Q4_K_M"', '"prebuilt"\nprebuilt = "made/model.gguf"'), ('"4bit"', '"prebuilt"\nprebuilt = "made/mlx"')
    fleet = manifest(*edits).resolve(Path("/srv"))
    world = World(
        devices=FRESH.devices,
        prebuilt={"/srv/made/model.gguf": SourceFact("6" * 64, 123), "/srv/made/mlx": SourceFact("7" * 64, 456)},
    )
    builds = plan(fleet, world).builds
    assert [(b.source, b.size_bytes) for b in builds] == [("/srv/made/model.gguf", 123), ("/srv/made/mlx", 456)]
    changed = replace(world, prebuilt={**world.prebuilt, "/srv/made/mlx": SourceFact("8" * 64, 456)})
    assert {b.key for b in builds} & {b.key for b in plan(fleet, changed).builds} == {builds[0].key}


def test_a_fact_that_is_missing_is_named() -> None:
    with pytest.raises(PlanError, match=r"models\.smollm2\.source: was not looked at"):
        plan(manifest(), replace(FRESH, sources={}))
    with pytest.raises(PlanError, match="the versions of the gguf toolchain are not known"):
        plan(manifest(), replace(FRESH, toolchains={}))


def test_release_of_is_what_the_plan_says() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    change = plan(fleet, world).changes[0]
    assignment = fleet.assignments()["jetson-01"]
    assert release_of(fleet, assignment, world.builds[change.build_key], world) == change.release
    assert release_of(fleet, assignment, BuildFact("9" * 64, 5), world) != change.release


def test_the_demos_manifests_one_after_the_other_always_fit() -> None:
    devices = {name: replace(ENROLLED, inventory=BIG) for name in ("jetson-01", "mac-01", "npu-pc-01")}
    world = replace(FRESH, devices=devices)
    for name in ("demo", "demo-bad-probe", "demo-bad-bytes", "demo-next"):
        fleet = load(MANIFESTS / f"{name}.toml")
        world = _with_sizes(world, fleet)
        made = plan(fleet, world)
        assert (made.misfits, made.warnings) == ((), ()), name
        assert set(_kinds(made).values()) == {Kind.INSTALL if name == "demo" else Kind.UPDATE}
        if name == "demo":
            world = _settled(world, made)


def _with_sizes(world: World, fleet: Manifest) -> World:
    builds = {b.key: BuildFact(b.key, b.size_bytes) for b in plan(fleet, world).missing_builds}
    return replace(world, builds={**world.builds, **builds})


def test_a_fleet_of_thousands_is_planned_in_seconds() -> None:
    names = [f"d{number}" for number in range(3000)]
    extra = "\n".join(f'[devices.{name}]\nprofile = "jetson"\nmodel = "smollm2"' for name in names)
    fleet = manifest(("[probes.speaks]", f"{extra}\n[probes.speaks]"))
    world = _with_builds(replace(FRESH, devices=dict.fromkeys((*DEVICES, *names), ENROLLED)), fleet)
    assert len(plan(fleet, world).to_do) == 3003


def test_a_release_names_the_template_of_its_artifact_and_one_from_before_is_kept() -> None:
    fleet = manifest()
    assignment = fleet.assignments()["jetson-01"]
    without = release_of(fleet, assignment, BuildFact("9" * 64, 5), FRESH)
    assert "chat_template" not in without.options
    build = BuildFact("9" * 64, 5, "c" * 64)
    named = release_of(fleet, assignment, build, FRESH)
    assert named.chat_template == "c" * 64
    # What a fleet serves since before the controller knew of templates is not sent to it again under a new name.
    world = replace(FRESH, releases={without.digest: without})
    assert release_of(fleet, assignment, build, world) == without
    other = replace(named, options={**named.options, "chat_template": "d" * 64})
    assert release_of(fleet, assignment, build, replace(FRESH, releases={other.digest: other})) == named


def test_a_cordoned_device_is_left_as_it_is_and_holds_up_nobody() -> None:
    cordoned = replace(ENROLLED, cordoned="ana: on loan")
    made = plan(manifest(), _with_devices(FRESH, jetson_01=cordoned))
    assert _kinds(made)["jetson-01"] is Kind.CORDONED
    assert made.changes[0].note == (
        "cordoned by ana: on loan; `edgewright devices uncordon jetson-01` lets changes reach it"
    )
    assert [change.device for change in made.to_do] == ["jetson-02", "mac-01"]
    full = replace(cordoned, inventory=replace(BIG, memory_bytes=1))
    crowded = plan(manifest(), _with_devices(FRESH, jetson_01=full))
    assert crowded.misfits == ()
    assert [warning.split(" needs about ")[0] for warning in crowded.warnings] == ["jetson-01: memory:"]


def test_a_cordoned_device_that_has_what_it_should_is_no_matter() -> None:
    fleet = manifest()
    built_world = _with_builds(FRESH, fleet)
    world = _settled(built_world, plan(fleet, built_world))
    world = _with_devices(world, jetson_01=replace(world.devices["jetson-01"], cordoned="ana"))
    assert set(_kinds(plan(fleet, world)).values()) == {Kind.NONE}


def test_a_cordoned_device_with_a_release_that_was_rolled_back_refuses_no_apply() -> None:
    fleet = manifest()
    world = _with_builds(FRESH, fleet)
    digest = plan(fleet, world).changes[0].to_release
    world = _with_devices(world, jetson_01=replace(ENROLLED, held_releases=frozenset({digest}), cordoned="ana"))
    assert _kinds(plan(fleet, world))["jetson-01"] is Kind.CORDONED
    again = plan(fleet, world, again=True).changes[0]
    assert (again.kind, again.lifts_hold) == (Kind.CORDONED, False)


def test_a_decommissioned_device_is_not_enrolled_and_no_stranger() -> None:
    gone = DeviceFact(enrolled=False, revoked=True, decommissioned=True, desired_release="d" * 64)
    made = plan(manifest(), _with_devices(FRESH, jetson_01=gone, old_01=gone))
    assert _kinds(made)["jetson-01"] is Kind.UNENROLLED
    assert made.changes[0].note.startswith("decommissioned; `edgewright enroll create --device jetson-01`")
    assert made.warnings == ()


def test_only_some_devices_are_planned_for_with_their_builds() -> None:
    strange = _with_devices(FRESH, stranger_01=ENROLLED)
    made = plan(manifest(), strange, only={"mac-01"})
    assert [change.device for change in made.changes] == ["mac-01"]
    assert [build.profiles for build in made.builds] == [("mac",)]
    assert made.warnings == ()
    retired = manifest(("[devices.jetson-02]", "[devices.old-01]\nserve = false\n[devices.jetson-02]"))
    assert [change.device for change in plan(retired, strange, only={"mac-01"}).changes] == ["mac-01"]
    assert [change.device for change in plan(retired, strange, only={"old-01"}).changes] == ["old-01"]


def test_a_plan_has_the_waves_of_what_changes_those_online_first() -> None:
    fleet = manifest()
    made = plan(fleet, _with_devices(FRESH, mac_01=replace(ENROLLED, online=True)))
    assert [(wave.what, wave.devices) for wave in made.waves] == [
        ("up to 1", ("mac-01",)),
        ("100%", ("jetson-01", "jetson-02")),
    ]
    world = _with_builds(FRESH, fleet)
    assert plan(fleet, _settled(world, plan(fleet, world))).waves == ()


def _divergence(kl: float) -> Divergence:
    return Divergence(1016, kl, kl / 50, 8 * kl, 0.9, 13.0, 1.01, 0.01)


def _measures(runtime: str, kl: float) -> Measures:
    kind = {"gguf": "Q8_0", "mlx": "affine8g64"}[runtime]
    return Measures(
        runtime=runtime,
        parameters=1000,
        weight_bytes=1062,
        types={kind: 1000},
        tensors=(TensorMeasure("a", "Q8_0", 1000, 0.0, 1.0, 0.0, 0.0),) if runtime == "gguf" else (),
        divergence=_divergence(kl),
        fidelity=_divergence(1e-11),
        unproven=() if runtime == "gguf" else ("nothing here is",),
    )


def _measured(world: World, fleet: Manifest, kl: float) -> World:
    measures = {build.key: _measures(build.recipe.runtime, kl) for build in plan(fleet, world).builds}
    return replace(world, measures=measures, gated=True)


def _limited(table: str) -> Manifest:
    quality = f"[profiles.jetson.quality]\n{table}\n[profiles.mac.quality]\nallow_unproven = true\n\n[devices.mac-01]"
    return manifest(("[devices.mac-01]", quality))


def test_where_builds_are_measured_one_counts_only_within_its_limits() -> None:
    fleet = _limited("")
    world = replace(_with_builds(FRESH, fleet), gated=True)
    assert len(plan(fleet, FRESH).missing_builds) == 2
    assert [build.cached for build in plan(fleet, world).builds] == [False, False], "nobody has measured them"
    good = plan(fleet, _measured(world, fleet, 0.004))
    assert good.missing_builds == ()
    assert [build.cached for build in good.builds] == [True, True]
    assert good.refused_builds == ()


def test_a_build_that_was_refused_before_is_refused_at_once_by_profile_and_check() -> None:
    fleet = _limited("")
    made = plan(fleet, _measured(FRESH, fleet, 0.9))
    assert made.missing_builds == ()
    assert [build.recipe.runtime for build in made.refused_builds] == ["gguf", "mlx"]
    gguf = made.refused_builds[0].refused
    assert gguf[0].startswith("profiles.jetson: divergence: mean KL 0.9 nats, at most ")
    assert any("smollm2 gguf Q4_K_M: profiles.jetson: divergence" in warning for warning in made.warnings)


def test_a_limit_that_changes_is_judged_by_what_was_measured() -> None:
    fleet = _limited("")
    world = _measured(_with_builds(FRESH, fleet), fleet, 0.004)
    strict = plan(_limited("kl = 0.001"), world)
    assert [build.recipe.runtime for build in strict.refused_builds] == ["gguf"]
    near = plan(_limited("kl = 0.0041"), world)
    assert [build.recipe.runtime for build in near.missing_builds] == ["gguf"], "too near to tell from so few tokens"
    more = plan(_limited("tokens = 4096"), world)
    assert [build.recipe.runtime for build in more.missing_builds] == ["gguf"]
    assert more.refused_builds == ()


def test_what_is_known_to_be_unproven_is_refused_before_it_is_built() -> None:
    onnx = ('runtime = "gguf"', 'runtime = "onnx"'), ('quantization = "Q4_K_M"', 'quantization = "int4"')
    allowed = ("[devices.jetson-01]", "[profiles.jetson.quality]\nallow_unproven = true\n\n[devices.jetson-01]")
    gated = replace(FRESH, gated=True)
    assert len(plan(manifest(*onnx, allowed), gated).missing_builds) == 2
    made = plan(manifest(*onnx), gated)
    assert [build.recipe.runtime for build in made.missing_builds] == ["mlx"]
    (refused,) = made.refused_builds
    assert refused.refused[0].startswith("profiles.jetson: unproven: CUDA's own kernels and their speed")
    assert "allow_unproven = true" in "".join(refused.refused)
    assert len(plan(manifest(*onnx), FRESH).missing_builds) == 2, "where nothing is measured, nothing is asked for"


def test_a_prebuilt_artifact_is_not_measured() -> None:
    fleet = manifest(('quantization = "Q4_K_M"', 'quantization = "prebuilt"\nprebuilt = "tuned.gguf"'))
    prebuilt = {"tuned.gguf": SourceFact(digest="9" * 64, bytes=5)}
    world = replace(FRESH, prebuilt=prebuilt)
    with_builds = replace(_with_builds(world, fleet), gated=True)
    (build,) = [build for build in plan(fleet, with_builds).builds if build.recipe.prebuilt]
    assert build.cached
