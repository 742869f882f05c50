"""What shapes the rotary embedding reaches mlx-lm under the names that it reads."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright_controller.compile.mlx_config import ConfigError, cure


def test_the_base_is_written_where_mlx_lm_reads_it() -> None:
    config = {"hidden_size": 8, "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}
    assert cure(config) == config | {"rope_theta": 100000.0}


def test_a_kind_that_scales_is_written_as_rope_scaling() -> None:
    rope = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0}
    cured = cure({"rope_parameters": rope})
    assert cured["rope_theta"] == 500000.0
    assert cured["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}


def test_what_stands_there_is_left_alone() -> None:
    assert cure({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}})["rope_theta"] == 5.0
    assert cure({"rope_theta": 10000.0}) == {"rope_theta": 10000.0}


GEMMA3 = {
    "model_type": "gemma3_text",
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 3e4, "rope_type": "default"},
    },
}


def test_both_bases_of_a_gemma_3_and_its_pattern_are_written_where_mlx_lm_reads_them() -> None:
    cured = cure(GEMMA3)
    assert (cured["rope_theta"], cured["rope_local_base_freq"], cured["sliding_window_pattern"]) == (5e5, 3e4, 3)
    assert cured["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    # A model that also sees has the same in a table of its own.
    assert cure({"model_type": "gemma3", "text_config": GEMMA3})["text_config"] == cured


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_parameters": {"sliding_attention": {"rope_theta": 1e4, "rope_type": "linear"}}}, "window"),
        ({"model_type": "another"}, "rope_parameters"),
    ],
    ids=["another pattern", "local layers that scale", "a model of which mlx-lm knows no two bases"],
)
def test_layers_that_mlx_lm_would_not_tell_apart_are_refused_rather_than_lost(other: dict[str, Any], why: str) -> None:
    assert cure(GEMMA3)
    with pytest.raises(ConfigError, match=why):
        cure({**GEMMA3, **other})


def test_the_part_of_a_head_that_is_rotated_is_written_where_mlx_lm_reads_it() -> None:
    rope = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.4}
    cured = cure({"rope_parameters": rope})
    assert (cured["partial_rotary_factor"], cured["rotary_pct"]) == (0.4, 0.4)


def test_a_parameter_that_mlx_lm_is_not_known_to_read_is_refused_rather_than_lost() -> None:
    assert cure({"rope_parameters": {"rope_theta": 5.0}})
    with pytest.raises(ConfigError, match="not known to read rope_twist"):
        cure({"rope_parameters": {"rope_theta": 5.0, "rope_twist": 1}})
