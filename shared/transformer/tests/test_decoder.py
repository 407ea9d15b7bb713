"""The decoder against transformers' Llama; packing and caching do not change the logits."""

import math

import pytest
import torch
from torch import nn

from shared.transformer import (
    Attention,
    Block,
    Decoder,
    DecoderConfig,
    KVCache,
    Llama3Scaling,
    SwiGLU,
    positions_within_segments,
)

CONFIG = DecoderConfig(vocab_size=23, width=24, depth=3, heads=6, kv_heads=2, mlp_dim=20)


def _randomize(decoder: nn.Module) -> nn.Module:
    """Draw every weight at random: weights that are 0 or 1 by default would hide errors."""
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    return decoder.eval()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_decoder_equals_transformers_llama(scaled, tied):
    transformers = pytest.importorskip("transformers")
    rope = {"rope_type": "default", "rope_theta": 1000.0}
    scaling = None
    if scaled:
        rope |= {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
        rope |= {"original_max_position_embeddings": 64}
        scaling = Llama3Scaling(factor=4.0, high_frequency_factor=3.0, original_context=64)
    llama = _randomize(
        transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=23,
                hidden_size=24,
                intermediate_size=20,
                num_hidden_layers=3,
                num_attention_heads=6,
                num_key_value_heads=2,
                rms_norm_eps=1e-5,
                rope_parameters=rope,
                tie_word_embeddings=tied,
            )
        )
    )
    decoder = Decoder(
        DecoderConfig(**(vars(CONFIG) | {"rotary_base": 1000.0, "rotary_scaling": scaling, "tied": tied}))
    ).eval()
    names = {
        "model.embed_tokens": "embedding",
        "model.norm": "norm",
        "lm_head": "output",
        "model.layers.": "blocks.",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "mlp_norm",
        "self_attn": "attention",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "o_proj": "output",
        "mlp": "mlp",
        "gate_proj": "gate",
        "up_proj": "up",
        "down_proj": "down",
    }
    state = {}
    for name, tensor in llama.state_dict().items():
        for published, internal in names.items():
            name = name.replace(published, internal)
        state[name] = tensor
    decoder.load_state_dict(state)
    tokens = torch.randint(0, 23, (2, 37))
    torch.testing.assert_close(decoder(tokens), llama(tokens).logits, atol=1e-4, rtol=1e-4)


def test_embeddings_replace_token_ids():
    decoder = _randomize(Decoder(CONFIG))
    tokens = torch.randint(0, 23, (2, 5))
    torch.testing.assert_close(decoder(embeddings=decoder.embedding(tokens)), decoder(tokens))
    for both in ({}, {"token_ids": tokens, "embeddings": decoder.embedding(tokens)}):
        with pytest.raises(ValueError, match="either token ids or embeddings"):
            decoder(**both)


def test_no_token_attends_to_later_tokens():
    decoder = _randomize(Decoder(CONFIG))
    tokens = torch.randint(0, 23, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 23
    before, after = decoder(tokens)[0], decoder(changed)[0]
    torch.testing.assert_close(before[:5], after[:5], atol=0, rtol=0)
    assert (before[5:] - after[5:]).abs().amax(-1).min() > 1e-4


def test_packed_documents_equal_separate_documents():
    decoder = _randomize(Decoder(CONFIG))
    lengths = [4, 1, 7]
    documents = [torch.randint(0, 23, (1, length)) for length in lengths]
    segments = torch.tensor([[0] * 4 + [1] + [2] * 7 + [-1] * 3])
    positions = []
    decoder.rotary.register_forward_pre_hook(lambda _, arguments: positions.append(arguments[0]))
    packed = decoder(torch.cat([*documents, torch.zeros(1, 3, dtype=torch.long)], dim=1), segments=segments)
    separate = torch.cat([decoder(document) for document in documents], dim=1)
    torch.testing.assert_close(packed[:, :12], separate, atol=1e-5, rtol=1e-5)
    assert packed.isfinite().all()
    assert positions[0].flatten().tolist() == [*range(4), 0, *range(7), *range(3)]


def test_order_is_time_whatever_the_positions_with_and_without_a_cache():
    """Tokens of an image may share a position, and still none sees what comes after it."""
    decoder = _randomize(Decoder(CONFIG))
    tokens, places = torch.randint(0, 23, (1, 7)), torch.tensor([[0, 1, 1, 1, 4, 2, 3]])
    cache = decoder.new_cache(1, 7)
    chunks = zip(tokens.split([3, 1, 3], dim=1), places.split([3, 1, 3], dim=1), strict=True)
    in_chunks = torch.cat([decoder(chunk, positions=place, cache=cache) for chunk, place in chunks], dim=1)
    torch.testing.assert_close(in_chunks, decoder(tokens, positions=places), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(in_chunks, decoder(tokens), atol=1e-2)


def test_positions_are_counted_in_each_run():
    assert positions_within_segments(torch.tensor([[0, 0, 0, 1, 1, -1], [3, 2, 2, 2, 2, 2]])).tolist() == [
        [0, 1, 2, 0, 1, 0],
        [0, 0, 1, 2, 3, 4],
    ]


@pytest.mark.parametrize("chunks", [[9], [1] * 9, [4, 1, 1, 3], [1, 5, 3]])
def test_reading_in_chunks_equals_reading_at_once(chunks):
    decoder = _randomize(Decoder(CONFIG))
    tokens = torch.randint(0, 23, (2, 9))
    cache = decoder.new_cache(2, 9)
    logits = torch.cat([decoder(chunk, cache=cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(logits, decoder(tokens), atol=1e-5, rtol=1e-5)


def test_a_full_cache_raises():
    decoder = Decoder(CONFIG)
    cache: KVCache = decoder.new_cache(1, 4)
    decoder(torch.zeros(1, 3, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match=r"has 4 slots and 3 are filled: 2 more tokens don't fit.*capacity 5"):
        decoder(torch.zeros(1, 2, dtype=torch.long), cache=cache)


def test_tied_weights_are_shared_and_bfloat16_works():
    tied = Decoder(DecoderConfig(**(vars(CONFIG) | {"tied": True})))
    assert tied.output.weight is tied.embedding.weight
    tokens = torch.randint(0, 23, (2, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = tied(tokens)
        cache = tied.new_cache(2, 6)
        in_chunks = torch.cat([tied(chunk, cache=cache) for chunk in tokens.split([4, 2], dim=1)], dim=1)
    assert logits.dtype == cache[0].keys.dtype == torch.bfloat16
    torch.testing.assert_close(in_chunks, logits, atol=0.02, rtol=0.1)
    torch.testing.assert_close(logits.float(), tied(tokens), atol=0.02, rtol=0.1)
    halved = Decoder(CONFIG).bfloat16()
    assert halved(tokens).isfinite().all()


def test_blocks_can_be_built_one_by_one():
    dims = []

    def block(layer):
        dims.append(16 + layer)
        return Block(Attention(24, 6, kv_heads=2, bias=False), SwiGLU(24, dims[-1]), lambda: nn.RMSNorm(24))

    decoder = Decoder(CONFIG, block)
    assert dims == [16, 17, 18] and [layer.mlp.up.out_features for layer in decoder.blocks] == dims
    assert decoder(torch.randint(23, (1, 5))).shape == (1, 5, 23)


def test_a_new_decoder_predicts_uniformly_and_has_small_residual_weights():
    decoder = Decoder(DecoderConfig(vocab_size=200, width=64, depth=8, heads=4, kv_heads=2, mlp_dim=128))
    tokens = torch.randint(0, 200, (4, 16))
    loss = nn.functional.cross_entropy(decoder(tokens).flatten(0, 1), torch.randint(0, 200, (64,)))
    assert loss.item() == pytest.approx(math.log(200), abs=0.1)
    for block in decoder.blocks:
        assert block.attention.query.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for layer in (block.attention.output, block.mlp.down):
            assert layer.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
