"""Latent attention: the absorbed form equals the plain one, and the cache holds what was computed beforehand."""

from dataclasses import replace

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from lessons.lesson_07_recipes.model.latent_attention import LatentAttention, absorbed_attention, expand
from lessons.lesson_07_recipes.model.latent_attention_cache import (
    cache_bytes_per_token,
    cached_values_per_token,
    measured_cache_bytes,
)
from shared.attention import Mask, padded_segments
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig, LayerCache, Rotary, mean_attention

CONFIG = DeepSeekConfig(
    *(41, 20, 2, 3, 3, 14),
    head_dim=5,
    rotary_dim=4,
    value_dim=7,
    latent_dim=6,
    query_latent_dim=9,
    dense_layers=1,
    experts=8,
    experts_per_token=2,
    expert_dim=6,
    groups=2,
    groups_per_token=1,
)


def attention_and_inputs(dtype, tokens=6, **changes):
    attention = redraw_weights(LatentAttention(replace(CONFIG, **changes))).to(dtype)
    x = torch.randn(2, tokens, 20, dtype=dtype)
    angles = Rotary(4, base=100.0)(torch.arange(tokens)[None, :, None])
    return attention, x, angles


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("query_latent_dim", [None, 9])
def test_absorbed_and_plain_attention_have_equal_outputs_and_gradients(query_latent_dim, dtype):
    attention, x, angles = attention_and_inputs(dtype, query_latent_dim=query_latent_dim)
    x.requires_grad_()
    segments = padded_segments([6, 4])
    mask = Mask(causal=True, segment_q=segments, segment_k=segments)
    upstream, results = torch.randn(2, 6, 20, dtype=dtype), []
    for attention.absorbed in (False, True):
        output = attention(x, mask=mask, angles=angles)
        results.append([output, *torch.autograd.grad(output, [x, *attention.parameters()], upstream)])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for plain, absorbed in zip(*results, strict=True):
        assert plain.abs().max() > 1e-3
        torch.testing.assert_close(absorbed, plain, atol=tolerance, rtol=tolerance)


def test_plain_attention_equals_the_papers_equations():
    """Head by head and token by token (arXiv:2412.19437, eq. 1–11), on pairs of elements 2i and 2i + 1."""
    attention, x, angles = attention_and_inputs(torch.float64, interleaved=True)
    weights = {name: parameter.detach() for name, parameter in attention.named_parameters()}

    def normalize(vector, name):
        return vector / (vector.square().mean() + 1e-6).sqrt() * weights[name]

    def rotated(vector, token):
        pairs = torch.view_as_complex(vector.clone().reshape(-1, 2))
        turned = torch.polar(torch.ones(2, dtype=torch.float64), angles[0, token].double())
        return torch.view_as_real(pairs * turned).flatten()

    row = x[0]
    outputs = []
    latents = [normalize(weights["down.weight"][:6] @ h, "latent_norm.weight") for h in row]
    rotary_keys = [rotated(weights["down.weight"][6:] @ h, t) for t, h in enumerate(row)]
    for t, h in enumerate(row):
        query_latent = normalize(weights["query_down.weight"] @ h, "query_norm.weight")
        heads = []
        for head in range(3):
            query = (weights["query_up.weight"] @ query_latent)[head * 9 : (head + 1) * 9]
            query = torch.cat([query[:5], rotated(query[5:], t)])
            up = weights["up.weight"][head * 12 : (head + 1) * 12]
            scores, values = [], []
            for s in range(t + 1):
                key = torch.cat([up[:5] @ latents[s], rotary_keys[s]])
                scores.append(query @ key / 9**0.5)
                values.append(up[5:] @ latents[s])
            heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
        outputs.append(weights["output.weight"] @ torch.cat(heads))
    result = attention(x, mask=Mask(causal=True), angles=angles)
    torch.testing.assert_close(result[0], torch.stack(outputs), atol=1e-5, rtol=0)


def test_the_functions_agree_for_any_sizes():
    queries, entries = torch.randn(2, 4, 3, 8).double(), torch.randn(2, 5, 10).double()
    expansion = torch.randn(4, 6 + 3, 8).double()  # 6 + 2 elements per query, latents of 8
    keys, values = expand(entries, expansion, 6)
    scores = (queries @ keys.transpose(2, 3) / 8**0.5).softmax(-1)
    torch.testing.assert_close(absorbed_attention(queries, entries, expansion, 6), scores @ values)


# ── The cache ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("absorbed", [None, True, False])
@pytest.mark.parametrize("chunks", [[9], [4, 5], [6, 1, 1, 1], [1] * 9])
def test_reading_in_chunks_equals_reading_at_once(chunks, absorbed):
    model = redraw_weights(DeepSeekV3(CONFIG), buffers=True).double()
    token_ids = torch.randint(41, (2, 9))
    expected = model(token_ids)
    model.absorb(absorbed)
    cache = model.new_cache(2, 9)
    logits = [model(part, cache=cache) for part in token_ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-6, rtol=1e-6)


def test_the_cache_holds_latents_and_rotary_keys_and_nothing_else():
    attention, x, angles = attention_and_inputs(torch.float64)
    cache = LayerCache(10)
    attention(x, mask=Mask(causal=True), angles=angles, cache=cache)
    assert list(cache.keys.shape) == [2, 1, 10, 6 + 4] and cache.values.numel() == 0
    entries = attention.compress(x, angles)
    torch.testing.assert_close(cache.keys[:, 0, :6], entries)
    latents = attention.down(x)[..., :6]
    torch.testing.assert_close(entries[..., :6], attention.latent_norm(latents))
    rotary_keys = attention.down(x)[..., 6:]
    torch.testing.assert_close(entries[..., 6:].norm(dim=-1), rotary_keys.norm(dim=-1), atol=1e-6, rtol=0)


def test_without_a_cache_and_for_several_tokens_keys_are_expanded(monkeypatch):
    calls = []
    original = absorbed_attention
    monkeypatch.setattr(
        "lessons.lesson_07_recipes.model.latent_attention.absorbed_attention",
        lambda *arguments, **options: calls.append(1) or original(*arguments, **options),
    )
    model = DeepSeekV3(CONFIG)
    cache = model.new_cache(1, 9)
    model(torch.randint(41, (1, 1)))
    model(torch.randint(41, (1, 4)), cache=cache)
    assert not calls
    model(torch.randint(41, (1, 1)), cache=cache)
    assert len(calls) == CONFIG.depth


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["multi-head", "grouped", "latent"])
def test_computed_cache_bytes_equal_those_of_the_tensors(kind, dtype):
    if kind == "latent":
        model = DeepSeekV3(CONFIG)
    else:
        model = LanguageModel(DecoderConfig(41, 24, 3, 6, {"multi-head": 6, "grouped": 2}[kind], 10, head_dim=8))
    model = model.to(dtype)
    cache = model.new_cache(2, 7)
    model(torch.randint(41, (2, 3)), cache=cache)
    measured = measured_cache_bytes(cache, model.config.depth)
    assert measured == cache_bytes_per_token(model.config, dtype) * 2 * 7


def test_the_published_cache_sizes():
    """Bytes per token in bfloat16: arXiv:2505.09343, table 1."""
    deepseek = DeepSeekConfig(129_280, 7168, 61, 128, 128, 18_432)
    qwen = DecoderConfig(152_064, 8192, 80, 64, 8, 29_568)
    llama = DecoderConfig(128_256, 16_384, 126, 128, 8, 53_248)
    assert [cache_bytes_per_token(config) for config in (deepseek, qwen, llama)] == [70_272, 327_680, 516_096]
    assert cached_values_per_token(deepseek) == 61 * 576


# ── A figure ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attention_weights_are_those_of_the_forward_pass():
    attention, x, angles = attention_and_inputs(torch.float64)
    weights = attention.weights(x, mask=Mask(causal=True), angles=angles)
    _, values = expand(attention.compress(x, angles), attention.up.weight.unflatten(0, (3, -1)), 5)
    output = attention.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, attention(x, mask=Mask(causal=True), angles=angles))
    later = attention.weights(x, mask=Mask(causal=True), angles=angles, first_query=4)
    torch.testing.assert_close(later, weights[:, :, 4:])


def test_mean_attention_of_a_whole_model():
    model = redraw_weights(DeepSeekV3(CONFIG))
    weights = mean_attention(model, model.embedding(torch.randint(41, (5,))), first_query=2)
    assert weights.shape == (3, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
