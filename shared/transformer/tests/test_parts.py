"""The parts against PyTorch's and Llama's, and the properties that define them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shared.attention import Mask
from shared.transformer import (
    MLP,
    Attention,
    Block,
    Decoder,
    DecoderConfig,
    RMSNorm,
    Rotary,
    Scores,
    SwiGLU,
    mean_attention,
    rotate,
)


def test_rms_norm_equals_pytorchs():
    x, norm = torch.randn(2, 3, 16), RMSNorm(16, eps=1e-3)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), norm.weight, 1e-3))
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_rms_norm_of_small_float16_numbers_does_not_underflow():
    x = torch.full((1, 4), 1e-4, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(4, eps=1e-12)(x), torch.ones(1, 4, dtype=torch.float16), atol=1e-2, rtol=0)


def test_swiglu_and_mlp_equal_their_formulas():
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
    reference = nn.MultiheadAttention(width, heads, kdim=context_width, vdim=context_width, batch_first=True)
    attention = Attention(width, heads, context_width=context_width)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    if cross:
        weights = (reference.q_proj_weight, reference.k_proj_weight, reference.v_proj_weight)
    else:
        weights = reference.in_proj_weight.chunk(3)
    for linear, weight, bias in zip(
        (attention.query, attention.key, attention.value), weights, reference.in_proj_bias.chunk(3), strict=True
    ):
        linear.weight.data, linear.bias.data = weight.data, bias.data
    attention.output.load_state_dict(reference.out_proj.state_dict())

    x = torch.randn(2, 6, width)
    context = torch.randn(2, 9, context_width) if cross else x
    expected, expected_weights = reference(x, context, context, average_attn_weights=False)
    torch.testing.assert_close(attention(x, context if cross else None), expected)
    torch.testing.assert_close(attention.weights(x, context if cross else None), expected_weights)


def test_queries_and_keys_are_normalized_rotated_and_biased():
    """Attention with every option, against its parts in order: norm, then rotation, then scores plus bias."""
    attention, x, bias = (
        Attention(12, 3, scores=Scores(qk_norm=RMSNorm)),
        torch.randn(2, 5, 12),
        torch.randn(1, 3, 5, 5),
    )
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


def test_queries_and_keys_may_have_different_norms():
    scores = Scores(qk_norm=lambda head_dim: RMSNorm(head_dim, eps=0.5), key_norm=nn.LayerNorm)
    attention = Attention(12, 3, kv_heads=1, scores=scores)
    assert attention.query_norm.eps == 0.5 and isinstance(attention.key_norm, nn.LayerNorm)
    with pytest.raises(ValueError, match="key_norm is given without qk_norm"):
        Scores(key_norm=nn.LayerNorm)


def test_scores_are_those_before_the_softmax():
    attention, mask = Attention(12, 3, kv_heads=1, scores=Scores(qk_norm=RMSNorm, softcap=0.3)), Mask(causal=True)
    x, angles = torch.randn(2, 5, 12), Rotary(4)(torch.arange(5)[None, :, None])
    scores = attention.scores(x, mask=mask, angles=angles)
    torch.testing.assert_close(scores.softmax(dim=-1), attention.weights(x, mask=mask, angles=angles))
    visible = torch.ones(5, 5).tril().bool()
    assert torch.isneginf(scores[..., ~visible]).all() and scores[..., visible].abs().max() < 0.3


def test_rotary_scores_depend_on_the_distance_only():
    q, k = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)
    for axes in (1, 2, 3):
        rotary = Rotary(12, axes=axes)

        def score(position_q, position_k, rotary=rotary):
            angles_q, angles_k = (rotary(torch.tensor([[position]])) for position in (position_q, position_k))
            return (rotate(q, angles_q) * rotate(k, angles_k)).sum()

        one, other = list(range(3, 3 + axes)), list(range(5, 5 + 2 * axes, 2))
        far_one, far_other = ([p + 40 for p in position] for position in (one, other))
        torch.testing.assert_close(score(one, other), score(far_one, far_other), atol=1e-4, rtol=1e-4)
        assert not torch.isclose(score(one, other), score(one, far_other), atol=1e-3)


def test_interleaved_pairs_are_the_same_rotation_of_permuted_elements():
    x, angles = torch.randn(2, 3, 5, 8), torch.randn(1, 5, 4)
    interleaved = [0, 4, 1, 5, 2, 6, 3, 7]  # elements i and i + 4, side by side
    expected = rotate(x, angles)[..., interleaved]
    torch.testing.assert_close(rotate(x[..., interleaved], angles, interleaved=True), expected)
    assert (rotate(x, angles, interleaved=True) - rotate(x, angles)).abs().max() > 0.1


def test_each_rotary_axis_rotates_its_own_pairs():
    rotary = Rotary(8, axes=2)
    angles = rotary(torch.tensor([[[3, 0], [0, 3]]]))[0]
    assert angles[0, :2].tolist() == angles[1, 2:].tolist() == [3.0, pytest.approx(0.03)]
    assert angles[0, 2:].tolist() == angles[1, :2].tolist() == [0.0, 0.0]


def test_block_adds_each_part_to_the_residual_stream():
    block = Block(Attention(8, 2), MLP(8, 16), lambda: RMSNorm(8), layer_scale=0.5)
    x = torch.randn(2, 4, 8)
    residual = x + 0.5 * block.attention(block.attention_norm(x))
    torch.testing.assert_close(block(x), residual + 0.5 * block.mlp(block.mlp_norm(residual)))


def test_norms_may_stand_after_the_parts_only():
    block = Block(Attention(8, 2), MLP(8, 16), lambda: RMSNorm(8), norms="after")
    norms = [name for name, module in block.named_modules() if isinstance(module, RMSNorm)]
    assert norms == ["attention_post_norm", "mlp_post_norm"]
    for name in norms:
        nn.init.normal_(getattr(block, name).weight)
    x = torch.randn(2, 4, 8)
    residual = x + block.attention_post_norm(block.attention(x))
    torch.testing.assert_close(block(x), residual + block.mlp_post_norm(block.mlp(residual)))


def test_swiglu_drops_outputs_in_training_only():
    swiglu, x = SwiGLU(8, 12, dropout=0.25), torch.randn(50, 10, 8)
    output = swiglu(x)
    assert (output == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    expected = swiglu.eval()(x)
    torch.testing.assert_close(output[output != 0], expected[output != 0] / 0.75)


def test_stochastic_depth_keeps_the_mean_and_only_acts_in_training():
    block = Block(Attention(4, 1), MLP(4, 4), lambda: RMSNorm(4), drop_path=0.25)
    update = torch.ones(20_000, 1, 4)
    dropped = block._scale_and_drop(update, None)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert block.eval()._scale_and_drop(update, None) is update


def test_attention_dropout_acts_on_the_attention_in_training_only():
    block = Block(Attention(8, 2), MLP(8, 16), lambda: RMSNorm(8), attention_dropout=1.0)
    x = torch.randn(2, 4, 8)
    torch.testing.assert_close(block(x), x + block.mlp(block.mlp_norm(x)))
    residual = x + block.attention(block.attention_norm(x))
    torch.testing.assert_close(block.eval()(x), residual + block.mlp(block.mlp_norm(residual)))


def test_packed_images_equal_separate_images():
    block = Block(Attention(12, 3, kv_heads=1, scores=Scores(qk_norm=RMSNorm)), SwiGLU(12, 16), lambda: RMSNorm(12))
    rotary, lengths = Rotary(4, axes=2), [5, 3, 7]
    x, positions = torch.randn(1, 15, 12), torch.randint(0, 4, (1, 15, 2))
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    packed = block(x, mask=Mask(segment_q=segments, segment_k=segments), angles=rotary(positions))
    separate = [
        block(a, angles=rotary(p)) for a, p in zip(x.split(lengths, 1), positions.split(lengths, 1), strict=True)
    ]
    torch.testing.assert_close(packed, torch.cat(separate, dim=1))


def test_attention_weights_of_the_last_queries_are_the_last_rows():
    torch.manual_seed(0)
    attention, x = Attention(16, 4, kv_heads=2), torch.randn(2, 7, 16)
    segments = torch.tensor([[0, 0, 1, 1, 1, 1, -1], [0] * 7])
    for mask in (Mask(), Mask(causal=True), Mask(causal=True, window=2, segment_q=segments, segment_k=segments)):
        torch.testing.assert_close(
            attention.weights(x, mask=mask, first_query=4), attention.weights(x, mask=mask)[:, :, 4:]
        )


def test_mean_attention_averages_layers_and_heads():
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(vocab_size=20, width=16, depth=3, heads=4, kv_heads=2, mlp_dim=24))
    embeddings = torch.randn(6, 16)
    x, angles, mask = decoder.block_inputs(embeddings[None])
    layers = []
    for block in decoder.blocks:
        layers.append(block.attention.weights(block.attention_norm(x), mask=mask, angles=angles))
        x = block(x, mask=mask, angles=angles)
    expected = torch.cat(layers).mean(dim=(0, 1))
    torch.testing.assert_close(mean_attention(decoder, embeddings), expected)
    torch.testing.assert_close(mean_attention(decoder, embeddings, first_query=4), expected[4:])
    torch.testing.assert_close(mean_attention(decoder, embeddings).sum(-1), torch.ones(6))
