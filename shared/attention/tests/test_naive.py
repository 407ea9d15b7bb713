"""The oracle itself: against loops over the definition, against finite differences, and in edge cases."""

import math

import pytest
import torch

from shared.attention import Mask, OutputGradient, attention, attention_backward, attention_scores, attention_weights
from shared.attention.inputs import AttentionInputs
from shared.attention.naive import attention_naive


@pytest.fixture(autouse=True)
def _oracle(monkeypatch):
    monkeypatch.setenv("ATTENTION_BACKEND", "naive")


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_it_sums_over_visible_keys():
    """Grouped heads, a value dimension of its own, softcap, bias and a mask, in plain Python numbers."""
    q, k, v, bias = _random(2, 4, 3, 5), _random(2, 2, 6, 5), _random(2, 2, 6, 2), _random(2, 1, 3, 6)
    mask = Mask(
        causal=True,
        position_q=torch.tensor([[1, 5, 3]]),
        segment_k=torch.tensor([[0, 0, 0, 0, 0, 0], [0, -1, 0, 0, 1, 0]]),
    )
    out, lse = attention(q, k, v, mask, scale=0.7, softcap=2.0, bias=bias, return_lse=True)
    for b in range(2):
        for h in range(4):
            for i in range(3):
                total, weighted = 0.0, [0.0, 0.0]
                for j in range(6):
                    if not mask.visible(3, 6).expand(2, -1, -1)[b, i, j]:
                        continue
                    dot = sum(q[b, h, i, d].item() * k[b, h // 2, j, d].item() for d in range(5))
                    weight = math.exp(2.0 * math.tanh(0.7 * dot / 2.0) + bias[b, 0, i, j].item())
                    total += weight
                    weighted = [s + weight * v[b, h // 2, j, d].item() for d, s in enumerate(weighted)]
                assert out[b, h, i].tolist() == pytest.approx([s / total for s in weighted], rel=1e-12)
                assert lse[b, h, i].item() == pytest.approx(math.log(total), rel=1e-12)


def test_gradients_equal_finite_differences():
    q, k, v, bias = _random(1, 2, 3, 2), _random(1, 1, 4, 2), _random(1, 1, 4, 3), _random(1, 1, 3, 4)
    mask = Mask(causal=True, window=2, position_q=torch.tensor([[0, 9, 2]]))  # no key is visible to the second query

    def compute(q, k, v, bias):
        out, lse = attention_naive(AttentionInputs(q, k, v, mask, scale=0.6, softcap=1.5, bias=bias))
        return out, lse.masked_fill(lse == -torch.inf, 0.0)

    assert torch.autograd.gradcheck(compute, [x.requires_grad_() for x in (q, k, v, bias)])


def test_a_row_without_visible_keys_gives_zeros_and_minus_infinity():
    q, k, v = (_random(1, 1, 3, 4).requires_grad_() for _ in range(3))
    mask = Mask(segment_q=torch.tensor([[0, -1, 7]]))
    out, lse = attention(q, k, v, mask, return_lse=True)
    assert (out[0, 0, 1:] == 0).all() and (lse[0, 0, 1:] == -torch.inf).all()
    assert (attention_weights(q, k, mask)[0, 0, 1:] == 0).all()
    (out.sum() + lse[0, 0, 0]).backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_large_scores_do_not_overflow():
    q = torch.full((1, 1, 1, 4), 100.0)
    out, lse = attention(q, torch.cat([q, -q], dim=2), torch.tensor([[[[1.0], [0.0]]]]), return_lse=True)
    assert out.item() == 1.0 and lse.item() == pytest.approx(20_000.0)


def test_weights_add_up_to_one_and_weight_the_values():
    q, k, v = _random(2, 4, 3, 8), _random(2, 2, 5, 8), _random(2, 2, 5, 8)
    weights = attention_weights(q, k, Mask(causal=True))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3, dtype=torch.float64))
    torch.testing.assert_close(weights @ v.repeat_interleave(2, dim=1), attention(q, k, v, Mask(causal=True)))


@pytest.mark.parametrize("softcap", [None, 1.2])
def test_scores_are_scaled_and_capped_and_hidden_ones_are_minus_infinity(softcap):
    q, k = _random(2, 4, 3, 8), _random(2, 2, 3, 8)
    scores = attention_scores(q, k, Mask(causal=True), scale=0.7, softcap=softcap)
    expected = 0.7 * q @ k.repeat_interleave(2, dim=1).mT
    expected = expected if softcap is None else softcap * (expected / softcap).tanh()
    visible = torch.ones(3, 3).tril().bool()
    torch.testing.assert_close(scores[..., visible], expected[..., visible])
    assert torch.isneginf(scores[..., ~visible]).all()
    weights = attention_weights(q, k, Mask(causal=True), scale=0.7, softcap=softcap)
    torch.testing.assert_close(scores.softmax(dim=-1), weights)


@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@pytest.mark.parametrize("softcap", [None, 1.2])
def test_two_blocks_of_keys_combine_to_all_keys(monkeypatch, backend, softcap):
    """Ring attention: blocks combine by their log-sum-exps, and their gradients add up to the dense ones."""
    monkeypatch.setenv("ATTENTION_BACKEND", backend)
    q, k, v = (
        _random(2, 4, 6, 3).requires_grad_(),
        _random(2, 2, 6, 3).requires_grad_(),
        _random(2, 2, 6, 5).requires_grad_(),
    )
    positions = torch.arange(6)[None]
    segments = torch.tensor([[0, 0, 0, 0, 0, -1], [0, 0, 1, 1, 1, 1]])
    settings = {"scale": 0.8, "softcap": softcap}

    def mask(cut: slice) -> Mask:
        return Mask(
            causal=True,
            position_q=positions,
            position_k=positions[:, cut],
            segment_q=segments,
            segment_k=segments[:, cut],
        )

    full, full_lse = attention(q, k, v, mask(slice(None)), return_lse=True, **settings)
    grad_out = _random(*full.shape)
    expected = torch.autograd.grad(full, (q, k, v), grad_out)

    cuts = (slice(0, 2), slice(2, 6))
    with torch.no_grad():
        outs, lses = zip(
            *(attention(q, k[:, :, c], v[:, :, c], mask(c), return_lse=True, **settings) for c in cuts), strict=True
        )
        lse = torch.logaddexp(*lses)
        weights = [torch.exp(each - lse.masked_fill(lse == -torch.inf, 0.0))[..., None] for each in lses]
        out = weights[0] * outs[0] + weights[1] * outs[1]
    torch.testing.assert_close(lse, full_lse)
    torch.testing.assert_close(out, full)

    output = OutputGradient(out, lse, grad_out)
    blocks = [attention_backward(q, k[:, :, c], v[:, :, c], output, mask(c), **settings) for c in cuts]
    grad_q, grad_k, grad_v = zip(*blocks, strict=True)
    torch.testing.assert_close(sum(grad_q), expected[0])
    torch.testing.assert_close(torch.cat(grad_k, dim=2), expected[1])
    torch.testing.assert_close(torch.cat(grad_v, dim=2), expected[2])
