"""The parts against PyTorch's own and against Llama's, and the properties that make them what they are."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shared.attention import Mask
from shared.transformer import MLP, Attention, Block, RMSNorm, Rotary, SwiGLU, rotate


def test_rms_norm_is_the_formula_and_pytorchs():
    x, norm = torch.randn(2, 3, 16), RMSNorm(16, eps=1e-3)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), norm.weight, 1e-3))
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_rms_norm_of_small_halves_does_not_lose_their_squares():
    x = torch.full((1, 4), 1e-4, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(4, eps=1e-12)(x), torch.ones(1, 4, dtype=torch.float16), atol=1e-2, rtol=0)


def test_swiglu_and_feed_forward_are_their_formulas():
    x = torch.randn(2, 3, 8)
    swiglu, mlp = SwiGLU(8, 12), MLP(8, 12)
    gate = x @ swiglu.gate.weight.T
    expected = (gate * gate.sigmoid() * (x @ swiglu.up.weight.T)) @ swiglu.down.weight.T
    torch.testing.assert_close(swiglu(x), expected)
    torch.testing.assert_close(
        mlp(x), F.linear(F.gelu(F.linear(x, mlp.up.weight, mlp.up.bias)), mlp.down.weight, mlp.down.bias)
    )


@pytest.mark.parametrize("cross", [False, True])
def test_attention_equals_pytorchs_multihead_attention(cross):
    width, heads, context_width = 20, 5, 12 if cross else 20
    theirs = nn.MultiheadAttention(width, heads, kdim=context_width, vdim=context_width, batch_first=True)
    ours = Attention(width, heads, context_width=context_width)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    if cross:
        weights = (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight)
    else:
        weights = theirs.in_proj_weight.chunk(3)
    for linear, weight, bias in zip(
        (ours.query, ours.key, ours.value), weights, theirs.in_proj_bias.chunk(3), strict=True
    ):
        linear.weight.data, linear.bias.data = weight.data, bias.data
    ours.output.load_state_dict(theirs.out_proj.state_dict())

    x = torch.randn(2, 6, width)
    context = torch.randn(2, 9, context_width) if cross else x
    expected, expected_weights = theirs(x, context, context, average_attn_weights=False)
    torch.testing.assert_close(ours(x, context if cross else None), expected)
    torch.testing.assert_close(ours.weights(x, context if cross else None), expected_weights)


def test_queries_and_keys_are_normed_turned_and_biased():
    """Attention with everything on, against its parts in order: norm, then rotation, then scores plus bias."""
    attention, x, bias = Attention(12, 3, qk_norm=RMSNorm), torch.randn(2, 5, 12), torch.randn(1, 3, 5, 5)
    nn.init.normal_(attention.query_norm.weight)
    nn.init.normal_(attention.key_norm.weight)
    angles = Rotary(4)(torch.arange(5)[None, :, None])
    split = lambda y: y.unflatten(-1, (3, 4)).transpose(1, 2)  # noqa: E731
    queries = rotate(attention.query_norm(split(attention.query(x))), angles)
    keys = rotate(attention.key_norm(split(attention.key(x))), angles)
    weights = (queries @ keys.mT / 2 + bias).softmax(-1)
    expected = attention.output((weights @ split(attention.value(x))).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, angles=angles, bias=bias), expected)
    torch.testing.assert_close(attention.weights(x, angles=angles), (queries @ keys.mT / 2).softmax(-1))


def test_rotary_makes_scores_depend_on_distance_alone():
    q, k = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)
    for axes in (1, 2, 3):
        rotary = Rotary(12, axes=axes)

        def score(place_q, place_k, rotary=rotary):
            at = lambda place: rotary(torch.tensor([[place]]))  # noqa: E731
            return (rotate(q, at(place_q)) * rotate(k, at(place_k))).sum()

        here, there = list(range(3, 3 + axes)), list(range(5, 5 + 2 * axes, 2))
        far = lambda place: [p + 40 for p in place]  # noqa: E731
        torch.testing.assert_close(score(here, there), score(far(here), far(there)), atol=1e-4, rtol=1e-4)
        assert not torch.isclose(score(here, there), score(here, far(there)), atol=1e-3)


def test_rotary_axes_turn_pairs_of_their_own():
    rotary = Rotary(8, axes=2)
    angles = rotary(torch.tensor([[[3, 0], [0, 3]]]))[0]
    assert angles[0, :2].tolist() == angles[1, 2:].tolist() == [3.0, pytest.approx(0.03)]
    assert angles[0, 2:].tolist() == angles[1, :2].tolist() == [0.0, 0.0]


def test_block_adds_each_part_to_what_was_there():
    block = Block(Attention(8, 2), MLP(8, 16), lambda: RMSNorm(8), layer_scale=0.5)
    x = torch.randn(2, 4, 8)
    seen = x + 0.5 * block.attention(block.attention_norm(x))
    torch.testing.assert_close(block(x), seen + 0.5 * block.mlp(block.mlp_norm(seen)))


def test_stochastic_depth_keeps_the_mean_and_only_acts_in_training():
    block = Block(Attention(4, 1), MLP(4, 4), lambda: RMSNorm(4), drop_path=0.25)
    update = torch.ones(20_000, 1, 4)
    dropped = block._finish(update, None)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert block.eval()._finish(update, None) is update


def test_packed_images_attend_as_if_alone():
    block = Block(Attention(12, 3, kv_heads=1, qk_norm=RMSNorm), SwiGLU(12, 16), lambda: RMSNorm(12))
    rotary, lengths = Rotary(4, axes=2), [5, 3, 7]
    x, places = torch.randn(1, 15, 12), torch.randint(0, 4, (1, 15, 2))
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    packed = block(x, mask=Mask(segment_q=segments, segment_k=segments), angles=rotary(places))
    alone = [block(a, angles=rotary(p)) for a, p in zip(x.split(lengths, 1), places.split(lengths, 1), strict=True)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1))
