"""Malformed settings of rotary positions end in an error that names the setting, and both published forms are read."""

import pytest

from shared.errors import CourseError
from shared.pretrained.rotary_settings import read_rotary
from shared.transformer import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}


@pytest.mark.parametrize(
    ("rotary", "message"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "'longrope'; supported are 'linear', 'dynamic', 'llama3', 'yarn'"),
        ({"rope_type": "proportional"}, "'proportional'"),
        ({"rope_type": "xpos"}, "'xpos'"),
        ({"rope_type": None}, "is None; supported"),
        ({"type": ["yarn"]}, r"is \['yarn'\]; supported"),
        ({"rope_type": "linear"}, "factor is missing"),
        ({"rope_type": "linear", "factor": 0}, "factor is 0, expected a number above 0"),
        ({"rope_type": "linear", "factor": "2"}, "factor is '2', expected a number"),
        ({"rope_type": "dynamic", "factor": None}, "factor is null"),
        ({"rope_type": "dynamic", "factor": -1.0}, "factor is -1.0"),
        (YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings is 0"),
        (YARN | {"original_max_position_embeddings": 64.5}, "original_max_position_embeddings is 64.5"),
        (YARN | {"factor": None, "original_max_position_embeddings": "64"}, "original_max_position_embeddings is '64'"),
        (YARN | {"beta_fast": 0}, "beta_fast is 0, expected a number above 0"),
        (YARN | {"beta_slow": "1"}, "beta_slow is '1'"),
        (YARN | {"beta_fast": 1.0, "beta_slow": 32.0}, "beta_fast 1.0 .* is below beta_slow 32.0"),
        (YARN | {"beta_slow": 33.0}, "beta_fast 32.0 .* is below beta_slow 33.0"),
        (YARN | {"attention_factor": 0.0}, "attention_factor is 0.0"),
        (YARN | {"mscale": -1.0}, "mscale is -1.0"),
        (YARN | {"mscale_all_dim": [1.0]}, r"mscale_all_dim is \[1.0\]"),
        (YARN | {"truncate": 1}, "truncate is 1, expected true or false"),
        (YARN | {"truncate": None}, "truncate is null"),
        (YARN | {"rope_theta": 1.0}, "rope_theta is 1.0; .* above 1"),
        (YARN | {"rope_theta": 0}, "rope_theta is 0"),
        (YARN | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        (LLAMA3 | {"low_freq_factor": 3.0}, "low_freq_factor 3.0 .* is not below high_freq_factor 3.0"),
        (LLAMA3 | {"high_freq_factor": None}, "high_freq_factor is null"),
        ({"full_attention": {}, "sliding_attention": {}}, "per type of layer .full_attention, sliding_attention"),
    ],
)
def test_a_malformed_setting_is_named(rotary, message):
    for form in ("rope_parameters", "rope_scaling"):
        with pytest.raises(CourseError, match=message):
            read_rotary({form: rotary}, 128)


@pytest.mark.parametrize("rotary", ["yarn", 3, ["yarn"]])
def test_settings_that_are_no_object_are_named(rotary):
    with pytest.raises(CourseError, match=r"rope_scaling is .* expected an object of settings"):
        read_rotary({"rope_scaling": rotary}, 128)


def test_the_trained_length_is_that_of_the_config_where_none_is_given():
    assert read_rotary({"rope_scaling": LLAMA3}, 128)["rotary_scaling"] == Llama3Scaling(4.0, 1.0, 3.0, 128)
    assert read_rotary({"rope_scaling": {"type": "dynamic", "factor": 2}}, 128)["rotary_scaling"] == DynamicScaling(
        2.0, 128
    )
    beside = {"rope_scaling": YARN, "original_max_position_embeddings": 32}
    assert read_rotary(beside, 128)["rotary_scaling"] == YarnScaling(4.0, 32)


def test_both_forms_give_the_same():
    expected = {"rotary_base": 50.0, "rotary_scaling": LinearScaling(2.0)}
    linear = {"factor": 2.0}
    assert read_rotary({"rope_theta": 50.0, "rope_scaling": linear | {"type": "linear"}}, 128) == expected
    assert read_rotary({"rope_parameters": linear | {"rope_type": "linear", "rope_theta": 50}}, 128) == expected
    assert read_rotary({}, 128) == {"rotary_base": 10_000.0, "rotary_scaling": None}
