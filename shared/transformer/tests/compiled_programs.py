"""Attention, block and decoder compile to one graph each and give the same results.

Run by test_compiled.py in a separate process, without the shape checker, which can't be traced.
"""

import pytest
import torch

from shared.attention import Mask, attention, packed_segments
from shared.transformer import Attention, Block, Decoder, DecoderConfig, RMSNorm, Scores, SwiGLU, YarnScaling


@pytest.fixture(autouse=True)
def _forget_compiled_programs():
    """Compile each program anew: a function that is compiled too often is an error."""
    torch.compiler.reset()


def _compiled(program, backend="eager"):
    """Compile to one graph without breaks; the backend builds quickly, because only tracing is tested."""
    return torch.compile(program, fullgraph=True, backend=backend)


SEGMENTS = packed_segments([4, 5])


@pytest.mark.parametrize(
    "mask",
    [Mask(), Mask(causal=True), Mask(causal=True, window=3), Mask(segment_q=SEGMENTS, segment_k=SEGMENTS)],
    ids=["everything", "causal", "window", "packed"],
)
def test_attention_and_its_gradients(mask):
    q, k, v = (torch.randn(1, 2, 9, 8).requires_grad_() for _ in range(3))
    expected, actual = attention(q, k, v, mask), _compiled(attention, "aot_eager")(q, k, v, mask)
    torch.testing.assert_close(actual, expected)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (actual, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_block_in_training():
    block = Block(
        Attention(24, 4, scores=Scores(qk_norm=RMSNorm)),
        SwiGLU(24, 48),
        lambda: RMSNorm(24),
        layer_scale=0.1,
        drop_path=0.5,
    )
    compiled = _compiled(block)
    x = torch.randn(2, 5, 24)
    compiled(x).sum().backward()
    assert block.attention.query.weight.grad.isfinite().all()
    block.eval()
    torch.testing.assert_close(compiled(x), block(x))


GEMMA = {"norm_offset": 1.0, "post_norms": True, "scaled_embedding": True, "activation": "gelu_pytorch_tanh"}
GEMMA |= {"attention_softcap": 5.0, "output_softcap": 3.0, "windows": (3,), "rotary_scaling": YarnScaling(4.0, 8)}


@pytest.mark.parametrize("settings", [{}, GEMMA], ids=["Llama", "Gemma 2"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_decoder(packed, settings):
    decoder = Decoder(DecoderConfig(vocab_size=23, width=24, depth=1, heads=6, kv_heads=2, mlp_dim=20, **settings))
    tokens = torch.randint(0, 23, (1, 9))
    arguments = {"segments": SEGMENTS} if packed else {}
    compiled = _compiled(decoder)
    torch.testing.assert_close(compiled(tokens, **arguments), decoder(tokens, **arguments))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(tokens, **arguments), decoder(tokens, **arguments), atol=0.02, rtol=0.1)


def test_a_decoder_with_its_cache():
    decoder = Decoder(DecoderConfig(vocab_size=23, width=24, depth=1, heads=6, kv_heads=2, mlp_dim=20)).eval()
    tokens, cache, compiled = torch.randint(0, 23, (2, 9)), decoder.new_cache(2, 9), _compiled(decoder)
    with torch.no_grad():
        in_steps = [compiled(chunk, cache=cache) for chunk in tokens.split([5, 1, 1, 1, 1], dim=1)]
        torch.testing.assert_close(torch.cat(in_steps, dim=1), decoder(tokens))
