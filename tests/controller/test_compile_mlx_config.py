"""The rotary base reaches mlx-lm under the name that it reads."""

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
