"""Compiled programs hold attention, block and decoder in one graph, and give the same numbers.

The shape checker can't be traced, so these tests run in a process of their own that is without it.
"""

import os
import subprocess
import sys

import pytest
import torch

from shared.attention import Mask, attention, segments_from_lengths
from shared.transformer import Attention, Block, Decoder, DecoderConfig, RMSNorm, SwiGLU

UNTYPED = os.environ.get("JAXTYPING_DISABLE") == "1"
needs_untyped = pytest.mark.skipif(
    not UNTYPED, reason="run by test_compiled_programs_in_a_process_without_shape_checks"
)


@pytest.mark.skipif(UNTYPED, reason="this is that process")
def test_compiled_programs_in_a_process_without_shape_checks():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    finished = subprocess.run(
        command, env=os.environ | {"JAXTYPING_DISABLE": "1"}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "8 passed, 1 skipped" in finished.stdout


def _compiled(program, backend="eager"):
    """One graph, no breaks; a backend that is quick to build, since it is the tracing that is tested."""
    return torch.compile(program, fullgraph=True, backend=backend)


SEGMENTS = segments_from_lengths([4, 5])


@needs_untyped
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


@needs_untyped
def test_a_block_in_training():
    block = Block(
        Attention(24, 4, qk_norm=RMSNorm), SwiGLU(24, 48), lambda: RMSNorm(24), layer_scale=0.1, drop_path=0.5
    )
    compiled = _compiled(block)
    x = torch.randn(2, 5, 24)
    compiled(x).sum().backward()
    assert block.attention.query.weight.grad.isfinite().all()
    block.eval()
    torch.testing.assert_close(compiled(x), block(x))


@needs_untyped
@pytest.mark.parametrize("packed", [False, True])
def test_a_decoder(packed):
    decoder = Decoder(DecoderConfig(vocab=23, width=24, layers=1, heads=6, kv_heads=2, hidden=20))
    tokens = torch.randint(0, 23, (1, 9))
    arguments = {"segments": SEGMENTS} if packed else {}
    compiled = _compiled(decoder)
    torch.testing.assert_close(compiled(tokens, **arguments), decoder(tokens, **arguments))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(compiled(tokens, **arguments), decoder(tokens, **arguments), atol=0.02, rtol=0.1)


@needs_untyped
def test_a_decoder_with_its_cache():
    decoder = Decoder(DecoderConfig(vocab=23, width=24, layers=1, heads=6, kv_heads=2, hidden=20)).eval()
    tokens, cache, compiled = torch.randint(0, 23, (2, 9)), decoder.new_cache(2, 9), _compiled(decoder)
    with torch.no_grad():
        in_steps = [compiled(chunk, cache=cache) for chunk in tokens.split([5, 1, 1, 1, 1], dim=1)]
        torch.testing.assert_close(torch.cat(in_steps, dim=1), decoder(tokens))
