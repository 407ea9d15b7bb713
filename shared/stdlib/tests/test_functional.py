"""Test fused operators against PyTorch and finite differences, and with extreme values."""

import math
from random import Random

import pytest
import torch
from torch.nn import functional as reference

from shared.stdlib import functional as engine
from shared.stdlib.creation import full, normal, tensor

TARGETS = [2, 0, 4, 1]

FUSED = {
    "linear": ([(2, 5, 9), (6, 9), (6,)], engine.linear, reference.linear),
    "linear without bias": ([(4, 3), (5, 3)], engine.linear, reference.linear),
    "linear of many rows": ([(20, 12), (16, 12), (16,)], engine.linear, reference.linear),
    "embedding": (
        [(5, 3)],
        lambda table: engine.embedding([4, 0, 4, 1], table),
        lambda table: reference.embedding(torch.tensor([4, 0, 4, 1]), table),
    ),
    "layer norm": (
        [(3, 4, 6), (6,), (6,)],
        lambda x, w, b: engine.layer_norm(x, w, b, 1e-3),
        lambda x, w, b: reference.layer_norm(x, (6,), w, b, 1e-3),
    ),
    "rms norm": (
        [(3, 4, 6), (6,)],
        lambda x, w: engine.rms_norm(x, w, 1e-3),
        lambda x, w: reference.rms_norm(x, (6,), w, 1e-3),
    ),
    "gelu": ([(4, 5)], lambda x: engine.gelu(x * 3.0), lambda x: reference.gelu(x * 3.0)),
    "sigmoid": ([(4, 5)], lambda x: engine.sigmoid(x * 3.0), lambda x: torch.sigmoid(x * 3.0)),
    "silu": ([(4, 5)], lambda x: engine.silu(x * 3.0), lambda x: reference.silu(x * 3.0)),
    "softmax": ([(3, 4, 5)], engine.softmax, lambda x: x.softmax(-1)),
    "softmax of another axis": ([(3, 4, 5)], lambda x: engine.softmax(x, 1), lambda x: x.softmax(1)),
    "log softmax": ([(3, 4, 5)], engine.log_softmax, lambda x: x.log_softmax(-1)),
    "cross entropy": (
        [(4, 5)],
        lambda x: engine.cross_entropy(x, TARGETS),
        lambda x: reference.cross_entropy(x, torch.tensor(TARGETS)),
    ),
    "attention": ([(2, 3, 5, 4)] * 3, engine.attention, reference.scaled_dot_product_attention),
    "attention to others": (
        [(2, 5, 9), (2, 7, 9), (2, 7, 3)],
        engine.attention,
        reference.scaled_dot_product_attention,
    ),
    "attention under a mask": (
        [(2, 5, 4)] * 3,
        lambda q, k, v: engine.attention(q, k, v, causal(5)),
        lambda q, k, v: reference.scaled_dot_product_attention(q, k, v, is_causal=True),
    ),
}


def causal(tokens: int):
    return tensor([[0.0 if j <= i else -math.inf for j in range(tokens)] for i in range(tokens)])


@pytest.mark.parametrize("name", FUSED)
def test_operator(name, check):
    check(name, *FUSED[name])


def composed_layer_norm(x, weight, bias):
    centered = x - x.mean(-1, True)
    return centered / ((centered * centered).mean(-1, True) + 1e-6).sqrt() * weight + bias


COMPOSED = {
    "linear": ([(3, 5), (4, 5), (4,)], engine.linear, lambda x, w, b: x @ w.transpose() + b),
    "layer norm": ([(3, 6), (6,), (6,)], engine.layer_norm, composed_layer_norm),
    "softmax": ([(3, 5)], engine.softmax, lambda x: x.exp() / x.exp().sum(-1, True)),
    "silu": ([(3, 5)], engine.silu, lambda x: x / ((-x).exp() + 1.0)),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_fused_equals_composed(name):
    shapes, fused, composed = COMPOSED[name]
    results = []
    for function in (fused, composed):
        random = Random(name)
        inputs = [normal(shape, 1.0, random, requires_grad=True) for shape in shapes]
        out = function(*inputs)
        (out * normal(out.shape, 1.0, random)).sum().backward()
        results.append([out.data, *(x.grad for x in inputs)])
    for one, other in zip(*results, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_inputs_without_requires_grad_get_no_gradient():
    x, weight = normal((3, 5), 1.0, Random(0)), normal((4, 5), 1.0, Random(1), requires_grad=True)
    engine.linear(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None


def test_empty_batch():
    weight, bias = normal((4, 5), 1.0, Random(1), requires_grad=True), full((4,), 0.0, requires_grad=True)
    out = engine.linear(full((0, 5), 0.0), weight, bias)
    assert out.shape == (0, 4)
    out.sum().backward()
    assert weight.grad == [0.0] * 20 and bias.grad == [0.0] * 4


def test_extreme_logits_do_not_overflow():
    logits = tensor([[1e300, 0.0, -1e300], [700.0, 710.0, 720.0]], requires_grad=True)
    loss = engine.cross_entropy(logits, [0, 0])
    assert loss.item() == pytest.approx((0.0 + 20.0 + math.log1p(math.exp(-10) + math.exp(-20))) / 2, rel=1e-12)
    loss.backward()
    assert all(map(math.isfinite, logits.grad))
    assert engine.softmax(tensor([[1e4, 1e4]])).data == [0.5, 0.5]
    assert engine.sigmoid(tensor([-1e4, 1e4])).data == [0.0, 1.0]
    assert engine.gelu(tensor([-1e4, 1e4])).data == [0.0, 1e4]


def test_masked_entries_get_zero_and_fully_masked_rows_give_zeros():
    x = tensor([[0.0, -math.inf, 0.0], [-math.inf] * 3], requires_grad=True)
    shares = engine.softmax(x)
    assert shares.data == [0.5, 0.0, 0.5, 0.0, 0.0, 0.0]
    (shares * tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    assert x.grad == pytest.approx([-0.5, 0.0, 0.5, 0.0, 0.0, 0.0])


def test_constant_row_is_normalized_to_zeros():
    x = full((1, 8), 3.0, requires_grad=True)
    out = engine.layer_norm(x, full((8,), 2.0), full((8,), 0.5))
    assert out.data == [0.5] * 8


@pytest.mark.parametrize(
    "wrong,message",
    [
        (lambda: engine.linear(full((2, 3), 0.0), full((4, 5), 0.0)), "must end in 5"),
        (lambda: engine.embedding([3], full((3, 2), 0.0)), "entries 0 to 2"),
        (lambda: engine.embedding([-1], full((3, 2), 0.0)), "entries 0 to 2"),
        (lambda: engine.layer_norm(full((2, 3), 0.0), full((4,), 1.0), full((4,), 0.0)), r"must end in \(4,\)"),
        (lambda: engine.rms_norm(full((2, 3), 0.0), full((4,), 1.0)), r"must end in \(4,\)"),
        (lambda: engine.cross_entropy(full((2, 3), 0.0), [0]), "one target per row, not 1"),
        (lambda: engine.cross_entropy(full((2, 3), 0.0), [0, 3]), "classes 0 to 2"),
        (lambda: engine.cross_entropy(full((2, 3), 0.0), [0, -1]), "classes 0 to 2"),
    ],
)
def test_invalid_arguments_are_rejected(wrong, message):
    with pytest.raises((ValueError, IndexError), match=message):
        wrong()
