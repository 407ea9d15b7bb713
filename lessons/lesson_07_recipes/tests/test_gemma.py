"""The properties of Gemma's settings: soft caps, norms after the parts, windows, and generation with a cache."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import Gemma2Config
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm, Gemma2TextScaledWordEmbedding

from lessons.lesson_07_recipes.model.gemma import (
    Gemma,
    gemma2_config,
    gemma_config,
    layer_mask_matrices,
    layer_windows,
    llama_and_gemma2,
)
from shared.attention import Mask
from shared.testing import redraw_weights
from shared.transformer import (
    MLP,
    Attention,
    Block,
    Decoder,
    DecoderConfig,
    LayerNorm,
    RMSNorm,
    Sampling,
    generate,
    mean_attention,
    soft_cap,
)
from shared.transformer.embedding import ScaledEmbedding
from shared.transformer.soft_cap import SoftCappedLinear

SMALL = {"vocab_size": 41, "width": 24, "depth": 4, "heads": 4, "kv_heads": 2, "mlp_dim": 20, "head_dim": 8}
CONFIG = gemma2_config(**SMALL, window=5, query_scalar=11, attention_softcap=2.0, output_softcap=3.0, tied=False)


@pytest.fixture
def gemma():
    return redraw_weights(Gemma(CONFIG), gain=0.2)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (gemma_config(), 2_506_172_416),
        (gemma_config(width=3072, depth=28, heads=16, kv_heads=16, mlp_dim=24_576), 8_537_680_896),
        (gemma2_config(), 2_614_341_888),
        (gemma2_config(width=3584, depth=42, heads=16, kv_heads=8, mlp_dim=14_336, query_scalar=224), 9_241_705_984),
        (
            gemma2_config(width=4608, depth=46, heads=32, kv_heads=16, mlp_dim=36_864, head_dim=128, query_scalar=144),
            27_227_128_320,
        ),
    ],
    ids=["2B", "7B", "2 2B", "2 9B", "2 27B"],
)
def test_the_number_of_parameters_is_the_published_one(config, parameters):
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_windows_alternate_from_a_local_layer_on():
    assert layer_windows(5, 7) == (7, None, 7, None, 7)
    assert layer_windows(7, 3, global_every=6) == (3, 3, 3, 3, 3, None, 3)
    assert layer_windows(3, 3, global_every=1) == (None, None, None)
    local, everywhere = layer_mask_matrices(2, 2, 4)
    assert local.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert torch.equal(everywhere, torch.ones(4, 4).tril().bool())


@pytest.mark.parametrize("arguments", [{"window": 0}, {"window": -3}, {"window": 4, "global_every": 0}])
def test_a_window_of_no_token_is_refused(arguments):
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        layer_windows(4, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": (3, None)}, "2 windows are given for 4 layers"),
        ({"windows": (3, None, 0, None)}, "windows are .3, None, 0, None.; expected at least 1"),
        ({"attention_softcap": 0.0}, "attention_softcap is 0.0; expected a number above 0"),
        ({"attention_softcap": -50.0}, "attention_softcap is -50.0"),
        ({"output_softcap": 0.0}, "output_softcap is 0.0"),
        ({"output_softcap": float("nan")}, "output_softcap is nan"),
        ({"query_scalar": 0}, "query_scalar is 0"),
        ({"norm": "layer"}, "norm 'rms' only"),
    ],
)
def test_values_that_describe_no_decoder_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_the_last_token_attends_to_the_window_of_each_layer():
    """Two local layers reach 2 · (window − 1) tokens back; a global layer reaches all."""
    token_ids = torch.randint(41, (1, 12))
    for windows, reach in (((4,), 3), ((4, 4), 6), ((4, None), 11), ((1, 1), 0)):
        sizes = SMALL | {"depth": len(windows)}
        decoder = redraw_weights(Gemma(replace(gemma2_config(**sizes), windows=windows)), gain=0.2)
        for back in range(12):
            changed = token_ids.clone()
            changed[0, 11 - back] = (changed[0, 11 - back] + 1) % 41
            difference = (decoder(changed)[0, -1] - decoder(token_ids)[0, -1]).abs().max()
            assert (difference > 1e-5) == (back <= reach), (windows, back)


@pytest.mark.parametrize("chunks", [[13], [1] * 13, [6, 1, 1, 5], [2, 11]])
def test_reading_in_chunks_equals_reading_at_once_with_windows(chunks, gemma):
    token_ids = torch.randint(41, (2, 13))
    cache = gemma.new_cache(2, 13)
    in_chunks = torch.cat([gemma(chunk, cache=cache) for chunk in token_ids.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(in_chunks, gemma(token_ids), atol=1e-5, rtol=1e-5)


def test_padding_does_not_take_a_place_in_the_window(gemma):
    prompts = [torch.randint(41, (length,)) for length in (3, 17, 1, 9)]
    together = generate(gemma, prompts, Sampling(16))
    assert len({tuple(text.tolist()) for text in together}) == 4
    for prompt, text in zip(prompts, together, strict=True):
        assert generate(gemma, [prompt], Sampling(16))[0].tolist() == text.tolist()
        assert generate(gemma, [prompt], Sampling(16), use_cache=False)[0].tolist() == text.tolist()


def test_spans_attend_in_both_directions_with_and_without_a_cache(gemma):
    token_ids, spans = torch.randint(41, (1, 9)), torch.tensor([[0, 0, 0, 0, -1, 1, 1, -1, -1]])
    at_once = gemma(token_ids, spans=spans)
    cache = gemma.new_cache(1, 9)
    pieces = zip(token_ids.split([5, 3, 1], 1), spans.split([5, 3, 1], 1), strict=True)
    in_chunks = torch.cat([gemma(chunk, spans=span, cache=cache) for chunk, span in pieces], dim=1)
    torch.testing.assert_close(in_chunks, at_once, atol=1e-5, rtol=1e-5)
    causal = gemma(token_ids)
    assert (causal - at_once)[0, 0].abs().max() > 1e-3  # the first token attends to its whole span
    alone = gemma(token_ids[:, :4], spans=spans[:, :4])
    torch.testing.assert_close(at_once[:, :4], alone, atol=1e-5, rtol=1e-5)


def test_scores_and_logits_stay_within_their_caps(gemma):
    token_ids = torch.randint(41, (2, 8))
    with torch.no_grad():
        for parameter in gemma.parameters():
            parameter.mul_(20)
    logits = gemma(token_ids)
    assert logits.abs().max() <= 3.0 and logits.abs().max() > 2.5
    # Scores within ±2 keep every softmax probability above exp(−4) / 8.
    weights = mean_attention(gemma, gemma.embedding(token_ids[0]))
    assert weights[-1].min() > 0 and gemma.blocks[1].attention.softcap == 2.0


def test_mean_attention_has_the_windows_of_the_layers():
    decoder = Gemma(replace(CONFIG, depth=1, windows=(3,)))
    weights = mean_attention(decoder, torch.randn(6, 24))
    assert torch.equal(weights > 0, Mask(causal=True, window=3).visible(6, 6)[0])


def test_a_part_adds_a_vector_of_fixed_size_whatever_its_weights_are():
    block = Block(Attention(8, 2), MLP(8, 16), lambda: RMSNorm(8, offset=1.0), norms="both")
    x = torch.randn(2, 4, 8)
    for scale in (1.0, 1000.0):
        block.attention.output.weight.data.mul_(scale)
        update = block.attention(block.attention_norm(x))
        residual = x + block.attention_post_norm(update)
        torch.testing.assert_close(block(x), residual + block.mlp_post_norm(block.mlp(block.mlp_norm(residual))))
        assert (residual - x).square().mean(-1).sqrt().mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    "settings",
    [{"layer_scale": 0.1}, {"drop_path": 0.1}, {"norm": lambda: LayerNorm(8)}],
    ids=lambda each: next(iter(each)),
)
def test_norms_after_the_parts_exclude_other_factors(settings):
    norm = settings.pop("norm", lambda: RMSNorm(8))
    with pytest.raises(ValueError, match="norms 'both' are given with the norm"):
        Block(Attention(8, 2), MLP(8, 16), norm, norms="both", **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norm_embedding_and_cap_equal_the_published_ones_in_every_precision(dtype):
    x = torch.randn(3, 5, 24, dtype=dtype)
    published = Gemma2RMSNorm(24, eps=0.1).to(dtype)
    nn.init.normal_(published.weight, std=0.3)
    norm = RMSNorm(24, 0.1, offset=1.0).to(dtype)
    assert torch.equal(norm.weight, torch.zeros(24, dtype=dtype))
    norm.load_state_dict(published.state_dict())
    assert torch.equal(norm(x), published(x))
    embedding, ids = ScaledEmbedding(41, 24).to(dtype), torch.randint(41, (2, 6))
    scaled = Gemma2TextScaledWordEmbedding(41, 24, 0, embed_scale=24**0.5).to(dtype)
    scaled.load_state_dict(embedding.state_dict())
    assert torch.equal(embedding(ids), scaled(ids))
    cap = Gemma2Config().final_logit_softcapping
    assert torch.equal(soft_cap(x * 20, cap), torch.tanh(x * 20 / cap) * cap)
    head = SoftCappedLinear(24, 7, 0.5).to(dtype)
    assert torch.equal(head(x), soft_cap(nn.functional.linear(x, head.weight), 0.5))


def test_the_pair_for_a_comparison_has_equal_parameters_but_for_the_norms_after_the_parts():
    sizes = DecoderConfig(200, 64, 4, 4, 2, 160, rotary_base=100.0)
    llama, gemma = llama_and_gemma2(sizes, window=16)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (llama, gemma)]
    assert counts[1] - counts[0] == 2 * 64 * 4
    assert counts[1] / counts[0] - 1 < 0.01
    assert llama.config == replace(sizes, tied=True)
    assert gemma.config.windows == (16, None, 16, None) and gemma.config.query_scalar == 16
    assert (gemma.config.rotary_base, gemma.config.attention_softcap) == (100.0, 50.0)
    _, without_caps = llama_and_gemma2(sizes, window=16, attention_softcap=None, output_softcap=None)
    assert without_caps.config.output_softcap is None
    token_ids = torch.randint(200, (2, 30))
    for model in (llama, gemma):
        loss = nn.functional.cross_entropy(model(token_ids).flatten(0, 1), token_ids.flatten())
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
