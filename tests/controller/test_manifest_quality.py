"""A profile's table `quality`: what it may say, and how what it may not is told."""

from __future__ import annotations

import pytest

from edgewright_controller.manifest import ManifestError
from edgewright_controller.quality.limits import Overrides
from tests.controller.small_fleet import manifest


def _with(table: str) -> str:
    return f"[profiles.jetson.quality]\n{table}\n\n[devices.jetson-01]"


def test_every_limit_may_be_set_and_those_that_are_not_stay_as_they_are() -> None:
    every = "kl = 0.3\nkl_p99 = 2\nperplexity_ratio = 1.2\nsame_top = 0.8\ntokens = 4096\nparity_differences = 1"
    profiles = manifest(("[devices.jetson-01]", _with(f"{every}\nallow_unproven = true"))).profiles
    quality = profiles["jetson"].quality
    assert quality
    assert quality.overrides == Overrides(0.3, 2.0, 1.2, 0.8, 1, 4096, allow_unproven=True)
    assert profiles["mac"].quality is None
    assert len({profiles["jetson"], profiles["mac"]}) == 2, "a profile may stand in a set"


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("kl = 0", "kl"),
        ("kl = nan", "kl"),
        ('kl = "low"', "kl"),
        ("kl_p99 = -1", "kl_p99"),
        ("perplexity_ratio = 0.5", "perplexity_ratio"),
        ("same_top = 90", "same_top"),
        ("tokens = 100000", "tokens"),
        ("parity_differences = 0.5", "parity_differences"),
        ("allow_unproven = 1", "allow_unproven"),
        ("k1 = 0.3", "k1"),
    ],
)
def test_a_limit_that_is_none_is_named_by_its_key(table: str, key: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest(("[devices.jetson-01]", _with(table)))
    (problem,) = caught.value.problems
    assert problem.key == f"profiles.jetson.quality.{key}"


def test_a_prebuilt_artifact_has_no_limits() -> None:
    prebuilt = ('quantization = "Q4_K_M"', 'quantization = "prebuilt"\nprebuilt = "tuned.gguf"')
    with pytest.raises(ManifestError, match="no source to be measured against; take `quality` away"):
        manifest(prebuilt, ("[devices.jetson-01]", _with("kl = 0.3")))
