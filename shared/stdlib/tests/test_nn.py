"""Test modules: their parameter names, and outputs and gradients equal to PyTorch's with the same weights."""

import math
from random import Random

import pytest
import torch

from shared.stdlib.creation import normal, tensor
from shared.stdlib.nn import MLP, Embedding, LayerNorm, Linear, Module, MultiHeadAttention, RMSNorm

WIDTH, HEADS = 12, 3


def redrawn(module: Module) -> Module:
    """Every weight drawn anew: zeros and ones would hide errors."""
    random = Random(5)
    for parameter in module.parameters().values():
        parameter.data = normal(parameter.shape, 0.5, random).data
    return module


def twin_of(x) -> torch.Tensor:
    return torch.tensor(x.tolist(), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "engine,reference",
    [
        (Linear(WIDTH, 5, Random(0)), torch.nn.Linear(WIDTH, 5)),
        (Linear(WIDTH, 5, Random(0), bias=False), torch.nn.Linear(WIDTH, 5, bias=False)),
        (LayerNorm(WIDTH, eps=1e-5), torch.nn.LayerNorm(WIDTH, eps=1e-5)),
        (RMSNorm(WIDTH, eps=1e-5), torch.nn.RMSNorm(WIDTH, eps=1e-5)),
        (Embedding(WIDTH, 4, Random(0)), torch.nn.Embedding(WIDTH, 4)),
    ],
)
def test_module_equals_pytorch(engine, reference):
    redrawn(engine)
    assert engine.parameters().keys() == dict(reference.named_parameters()).keys()
    reference = reference.double()
    reference.load_state_dict({name: twin_of(parameter) for name, parameter in engine.parameters().items()})
    if isinstance(engine, Embedding):
        out, reference_result = engine([3, 1, 3]), reference(torch.tensor([3, 1, 3]))
    else:
        x = normal((2, 3, WIDTH), 1.0, Random(1))
        out, reference_result = engine(x), reference(twin_of(x))
    assert out.data == pytest.approx(reference_result.flatten().tolist(), abs=1e-9)
    (out * out).sum().backward()
    (reference_result * reference_result).sum().backward()
    for name, parameter in reference.named_parameters():
        assert engine.parameters()[name].grad == pytest.approx(parameter.grad.flatten().tolist(), abs=1e-9)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_equals_pytorch(cross, masked):
    engine = redrawn(MultiHeadAttention(WIDTH, HEADS, Random(0)))
    reference = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    weights = {name: twin_of(parameter).detach() for name, parameter in engine.parameters().items()}
    stacked = {
        kind: torch.cat([weights[f"{part}.{kind}"] for part in ("query", "key", "value")])
        for kind in ("weight", "bias")
    }
    reference.load_state_dict(
        {"in_proj_weight": stacked["weight"], "in_proj_bias": stacked["bias"]}
        | {f"out_proj.{kind}": weights[f"output.{kind}"] for kind in ("weight", "bias")}
    )
    x = normal((2, 4, WIDTH), 1.0, Random(1), requires_grad=True)
    context = normal((2, 4, WIDTH), 1.0, Random(2), requires_grad=True) if cross else x
    mask = [[0.0 if j <= i else -math.inf for j in range(4)] for i in range(4)] if masked else None
    out = engine(x, context if cross else None, tensor(mask) if masked else None)
    y = twin_of(x)
    z = twin_of(context) if cross else y
    reference_result, _ = reference(y, z, z, attn_mask=torch.tensor(mask, dtype=torch.float64) if masked else None)
    assert out.data == pytest.approx(reference_result.flatten().tolist(), abs=1e-9)

    (out * out).sum().backward()
    (reference_result * reference_result).sum().backward()
    assert x.grad == pytest.approx(y.grad.flatten().tolist(), abs=1e-9)
    assert context.grad == pytest.approx(z.grad.flatten().tolist(), abs=1e-9)
    for row, part in enumerate(("query", "key", "value")):
        expected = reference.in_proj_weight.grad[row * WIDTH : (row + 1) * WIDTH]
        assert engine.parameters()[f"{part}.weight"].grad == pytest.approx(expected.flatten().tolist(), abs=1e-9)
    with pytest.raises(ValueError, match="3 heads"):
        MultiHeadAttention(8, 3, Random(0))


def test_attention_weights_of_any_widths_are_probabilities_that_the_output_follows():
    attention = redrawn(MultiHeadAttention(WIDTH, 2, Random(0), context_width=7, head_dim=5, bias=False))
    assert not any(name.endswith("bias") for name in attention.parameters())
    x, context = normal((2, 4, WIDTH), 1.0, Random(1)), normal((2, 3, 7), 1.0, Random(2))
    weights = attention.weights(x, context)
    assert weights.shape == (2, 2, 4, 3)
    assert weights.sum(-1).data == pytest.approx([1.0] * 16)
    values = attention.value(context).reshape(2, 3, 2, 5).permute(0, 2, 1, 3)
    merged = (weights @ values).permute(0, 2, 1, 3).reshape(2, 4, 10)
    assert attention(x, context).data == pytest.approx(attention.output(merged).data)


def test_the_mlp_is_applied_to_each_token_separately():
    mlp = redrawn(MLP(WIDTH, 7, Random(0)))
    x = normal((2, 3, WIDTH), 1.0, Random(1))
    expected = torch.nn.functional.gelu(twin_of(x) @ twin_of(mlp.up.weight).T + twin_of(mlp.up.bias))
    expected = expected @ twin_of(mlp.down.weight).T + twin_of(mlp.down.bias)
    assert mlp(x).data == pytest.approx(expected.flatten().tolist(), abs=1e-9)


class Nest(Module):
    def __init__(self):
        self.first = Linear(2, 3, Random(0))
        self.rest = [Linear(3, 1, Random(1), bias=False), LayerNorm(1)]
        self.scale = normal((1,), 1.0, Random(2), requires_grad=True)
        self.fixed = normal((1,), 1.0, Random(3))


def test_parameter_names_are_paths_of_attributes():
    assert list(Nest().parameters()) == [
        "first.weight",
        "first.bias",
        "rest.0.weight",
        "rest.1.weight",
        "rest.1.bias",
        "scale",
    ]


def test_parameters_load_by_name_and_mismatches_are_listed():
    one, other = redrawn(Nest()), Nest()
    values = {name: parameter.data for name, parameter in one.parameters().items()}
    other.load_parameters(values)
    assert all(parameter.data == values[name] for name, parameter in other.parameters().items())
    values["scal"], values["first.bias"] = values.pop("scale"), [0.0]
    with pytest.raises(
        ValueError, match=r"first.bias: 1 numbers for shape \(3,\); scal: no such parameter; scale: missing"
    ):
        other.load_parameters(values)


def test_module_without_forward_raises():
    with pytest.raises(NotImplementedError, match="Nest"):
        Nest()(1)


def test_initial_weights_are_within_the_glorot_limit():
    weight = Linear(300, 100, Random(0)).weight
    limit = math.sqrt(6 / 400)
    assert 0.99 * limit < max(map(abs, weight.data)) <= limit
