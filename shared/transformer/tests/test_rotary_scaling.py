"""Every rotary scaling equals the function that transformers uses for its type, with odd parameters too."""

import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from shared.pretrained.rotary_settings import SCALINGS, read_rotary, write_rotary
from shared.transformer import (
    Decoder,
    DecoderConfig,
    DynamicScaling,
    LinearScaling,
    Rotary,
    YarnScaling,
    yarn_magnitude,
)
from shared.transformer.rotary_scaling import yarn_frequencies

YARN = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}
CASES = {
    "linear": {"rope_type": "linear", "factor": 3.7},
    "linear, shrinking": {"rope_type": "linear", "factor": 0.5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.5},
    "dynamic, factor 1": {"rope_type": "dynamic", "factor": 1.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 7.0,
        "low_freq_factor": 1.5,
        "high_freq_factor": 9.0,
        "original_max_position_embeddings": 512,
    },
    "yarn, Qwen2.5": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768},
    "yarn, DeepSeek-V3": YARN | {"beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    "yarn, Kimi K2": YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 64.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    "yarn, two weights": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn, one weight counts for nothing": YARN | {"mscale": 0.7},
    "yarn, a weight of zero too": YARN | {"mscale": 0.0, "mscale_all_dim": 1.0},
    "yarn, attention factor": YARN | {"attention_factor": 0.83, "mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn, not truncated": YARN | {"truncate": False, "beta_fast": 17.3, "beta_slow": 2.2},
    "yarn, both limits on one pair": YARN | {"truncate": False, "beta_fast": 3.0, "beta_slow": 3.0},
    "yarn, factor from the lengths": YARN | {"factor": None, "original_max_position_embeddings": 300},
    "yarn, factor below 1": YARN | {"factor": 0.6},
    "yarn, null rotations": YARN | {"beta_fast": None, "beta_slow": None},
    "yarn, short context": YARN | {"original_max_position_embeddings": 40},
    # Every pair rotates less than once: the published limits then lie outside of the pairs.
    "yarn, shorter than one rotation": YARN | {"original_max_position_embeddings": 5},
    "yarn, longer than the slowest pair": YARN | {"original_max_position_embeddings": 10**6},
}


def published(case, head_dim, base, length=None):
    rotary = {"rope_theta": base} | CASES[case]
    config = LlamaConfig(
        hidden_size=2 * head_dim, num_attention_heads=2, max_position_embeddings=600, rope_parameters=dict(rotary)
    )
    return ROPE_INIT_FUNCTIONS[rotary["rope_type"]](config, seq_len=length)


@pytest.mark.parametrize("head_dim", [4, 18, 64, 128])
@pytest.mark.parametrize("base", [37.0, 10_000.0, 500_000.0])
@pytest.mark.parametrize("case", CASES)
def test_frequencies_and_magnitude_equal_those_of_transformers(case, base, head_dim):
    values = read_rotary({"rope_parameters": {"rope_theta": base} | CASES[case]}, 600)
    rotary = Rotary(head_dim, base=values["rotary_base"], scaling=values["rotary_scaling"])
    for length in (None, 100, 600, 601, 2400):
        expected, magnitude = published(case, head_dim, base, length)
        actual = rotary.frequencies(length=None if length is None else torch.tensor(length))
        torch.testing.assert_close(actual, expected, rtol=2e-5, atol=0)
        assert rotary.magnitude == pytest.approx(magnitude, rel=1e-12)


def test_every_implemented_type_is_compared_and_the_others_are_refused():
    assert {case["rope_type"] for case in CASES.values()} == set(SCALINGS)
    assert set(ROPE_INIT_FUNCTIONS) - set(SCALINGS) == {"longrope", "proportional"}


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_again(case):
    values = read_rotary({"rope_parameters": {"rope_theta": 50.0} | CASES[case]}, 600)
    written = write_rotary(DecoderConfig(11, 16, 1, 2, 1, 8, **values))
    assert None not in written.values()
    assert read_rotary({"rope_parameters": written}, 600) == values


def test_the_magnitude_of_yarn_is_that_of_the_paper():
    assert yarn_magnitude(16.0) == pytest.approx(0.1 * math.log(16) + 1)
    assert yarn_magnitude(16.0, 0.5) == pytest.approx(0.05 * math.log(16) + 1)
    assert yarn_magnitude(1.0) == yarn_magnitude(0.5) == 1.0
    assert YarnScaling(16.0, 64, mscale=1.0, mscale_all_dim=1.0).magnitude == 1.0


def test_yarn_keeps_fast_pairs_divides_slow_ones_and_mixes_the_rest():
    base, factor, context = 10_000.0, 8.0, 4096
    frequencies = Rotary(64, base=base).frequencies()
    rotations = context * frequencies / (2 * math.pi)
    ratio = yarn_frequencies(frequencies, base, factor, context, rotations=(32.0, 1.0), truncate=False) / frequencies
    torch.testing.assert_close(ratio[rotations >= 32], torch.ones_like(ratio[rotations >= 32]))
    torch.testing.assert_close(ratio[rotations <= 1], torch.full_like(ratio[rotations <= 1], 1 / factor))
    between = ratio[(rotations < 32) & (rotations > 1)]
    assert len(between) > 5 and ((between < 1) & (between > 1 / factor)).all() and (between.diff() < 0).all()


def test_angles_of_a_dynamic_scaling_follow_the_longest_sequence():
    rotary, plain = Rotary(8, scaling=DynamicScaling(2.0, 10)), Rotary(8)
    short, long = torch.arange(10)[None, :, None], torch.arange(30)[None, :, None]
    assert torch.equal(rotary(short), plain(short))
    torch.testing.assert_close(rotary(long)[..., 0], plain(long)[..., 0])
    torch.testing.assert_close(rotary(long)[..., -1], plain(long)[..., -1] / (2.0 * 3 - 1))


def test_attention_scores_are_multiplied_by_the_square_of_the_magnitude():
    config = {"vocab_size": 11, "width": 16, "depth": 1, "heads": 2, "kv_heads": 1, "mlp_dim": 8}
    assert Decoder(DecoderConfig(**config)).blocks[0].attention.scale is None
    linear = Decoder(DecoderConfig(**config, rotary_scaling=LinearScaling(4.0)))
    assert linear.blocks[0].attention.scale is None
    yarn = Decoder(DecoderConfig(**config, rotary_scaling=YarnScaling(4.0, 16)))
    assert yarn.blocks[0].attention.scale == pytest.approx((0.1 * math.log(4) + 1) ** 2 / 8**0.5)
