"""What shapes the rotary embedding reaches mlx-lm under the names that it reads."""

from __future__ import annotations

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


def test_bases_that_differ_between_layers_are_refused_rather_than_lost() -> None:
    with pytest.raises(ConfigError, match="rope_parameters"):
        cure({"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}})


def test_the_part_of_a_head_that_is_rotated_is_written_where_mlx_lm_reads_it() -> None:
    rope = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.4}
    cured = cure({"rope_parameters": rope})
    assert (cured["partial_rotary_factor"], cured["rotary_pct"]) == (0.4, 0.4)


def test_a_parameter_that_mlx_lm_is_not_known_to_read_is_refused_rather_than_lost() -> None:
    assert cure({"rope_parameters": {"rope_theta": 5.0}})
    with pytest.raises(ConfigError, match="not known to read rope_twist"):
        cure({"rope_parameters": {"rope_theta": 5.0, "rope_twist": 1}})
