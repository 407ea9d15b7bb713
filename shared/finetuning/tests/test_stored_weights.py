"""Linear layers with four- and eight-bit weights: products, gradients, memory, precision, and adapters on top."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared.finetuning import (
    AdapterConfig,
    Int8Linear,
    NF4Linear,
    add_adapters,
    quantize_int8,
    quantize_linears,
    trainable_fraction,
    training_bytes,
)
from shared.finetuning.int8 import packed_product
from shared.finetuning.tests.adapted_models import CONFIG, decoder, tokens
from shared.training import TrainingConfig, train

CLASSES = [NF4Linear, Int8Linear]


@pytest.mark.parametrize("layer_class", CLASSES)
@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradient_use_the_restored_weight(layer_class, bias):
    layer = layer_class(nn.Linear(64, 32, bias=bias))
    x = torch.randn(2, 3, 64, requires_grad=True)
    target = torch.randn(2, 3, 32)
    F.mse_loss(layer(x), target).backward()
    y = x.detach().clone().requires_grad_()
    F.mse_loss(F.linear(y, layer.dequantize(), layer.bias), target).backward()
    torch.testing.assert_close(layer(x), F.linear(x, layer.dequantize(), layer.bias))
    torch.testing.assert_close(x.grad, y.grad)
    assert not list(layer.parameters())


@pytest.mark.parametrize(("layer_class", "error"), [(NF4Linear, 0.15), (Int8Linear, 0.01)])
def test_the_restored_weight_is_close(layer_class, error):
    linear = nn.Linear(256, 256)
    nn.init.normal_(linear.weight, std=0.02)
    difference = layer_class(linear).dequantize() - linear.weight
    assert 0 < difference.pow(2).mean().sqrt() / 0.02 < error


@pytest.mark.parametrize("layer_class", CLASSES)
def test_autograd_stores_nothing_as_large_as_the_weight(layer_class):
    layer, sizes = layer_class(nn.Linear(256, 256)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()) or tensor, lambda t: t):
        layer(torch.randn(1, 256, requires_grad=True))
    assert max(sizes, default=0) < 256 * 256


def test_a_row_of_large_weights_does_not_affect_other_rows():
    weight = torch.randn(3, 50)
    weight[1] *= 1000
    weight[2] = 0
    codes, scales = quantize_int8(weight)
    assert codes.abs().amax(dim=1).tolist() == [127, 127, 0]
    error = (codes * scales[:, None] - weight).abs().amax(dim=1)
    assert (error <= scales / 2 * 1.0001).all() and error[0] < 0.02


def test_int8_codes_equal_bitsandbytes():
    bitsandbytes = pytest.importorskip("bitsandbytes.functional", reason="pip install -r requirements/oracles.txt")
    weight = torch.randn(33, 70)
    expected, largest, _ = bitsandbytes.int8_vectorwise_quant(weight.clone())
    codes, scales = quantize_int8(weight)
    assert torch.equal(codes, expected) and torch.equal(scales, largest / 127)


@pytest.mark.parametrize("layer_class", CLASSES)
def test_a_change_of_dtype_leaves_the_scales_unchanged(layer_class):
    layer = layer_class(nn.Linear(64, 32))
    before = layer.dequantize()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.dequantize(), before) and layer.bias.dtype == torch.bfloat16
    y = layer(torch.randn(2, 64, dtype=torch.bfloat16, requires_grad=True))
    assert y.dtype == torch.bfloat16
    y.sum().backward()


@pytest.mark.parametrize("layer_class", CLASSES)
def test_under_autocast_the_input_gradient_has_the_inputs_dtype(layer_class):
    layer, x = layer_class(nn.Linear(64, 32)), torch.randn(2, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, layer.dequantize().sum(dim=0).expand(2, 64), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("layer_class", CLASSES)
def test_quantized_weights_are_part_of_the_state_dict(layer_class):
    model, other = decoder(0), decoder(1)
    for each in (model, other):
        quantize_linears(each, layer_class, ("blocks.*",))
    assert not torch.equal(other(tokens()), model(tokens()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(tokens()), model(tokens()))


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_qlora_trains_through_frozen_weights(dora):
    model = decoder()
    assert len(quantize_linears(model, NF4Linear, ("blocks.*",))) == 14
    add_adapters(model, AdapterConfig(("blocks.*",), rank=4, dora=dora))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rows = torch.randint(CONFIG.vocab_size, (8, 9))

    def loss(model, rows):
        return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    first = loss(model, rows).item()
    train(model, lambda number: rows, loss, TrainingConfig(30, 1e-2))
    assert loss(model, rows).item() < first - 0.5
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_training_bytes_equal_the_allocated_bytes():
    for prepare in (lambda m: None, lambda m: add_adapters(m, AdapterConfig(("*.query",), rank=2))):
        model = decoder()
        prepare(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        model(tokens()).sum().backward()
        optimizer.step()
        counted = training_bytes(model)
        assert counted.weights == sum(p.nbytes for p in model.parameters())
        assert counted.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
        assert counted.moments == sum(moment.nbytes for moment in moments)
        assert counted.total == counted.weights + counted.gradients + counted.moments


def test_bits_per_weight_equal_the_papers():
    layer = NF4Linear(nn.Linear(1024, 1024, bias=False))
    bits = 8 * training_bytes(layer).weights / 1024**2
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-4)
    assert training_bytes(layer).gradients == 0
    assert training_bytes(Int8Linear(nn.Linear(1024, 1024, bias=False))).weights == 1024**2 + 4 * 1024


def test_a_quantized_weight_counts_as_one_number_in_the_fraction():
    fractions = []
    for prepare in (lambda m: None, lambda m: quantize_linears(m, NF4Linear, ("blocks.*",))):
        model = decoder()
        total = sum(p.numel() for p in model.parameters())
        prepare(model)
        add_adapters(model, AdapterConfig(("*.query",), rank=2))
        trainable = 2 * 2 * (CONFIG.width + CONFIG.width)
        assert trainable_fraction(model) == pytest.approx(trainable / (total + trainable))
        fractions.append(trainable_fraction(model))
    assert fractions[0] == fractions[1]


def test_counting_needs_no_memory():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(10**5, 10**5, bias=False))
    assert training_bytes(model).total == 4 * 4 * 10**10
    with torch.device("meta"):
        quantize_linears(model, NF4Linear, ("0",))
    assert 8 * training_bytes(model).total / 10**10 == pytest.approx(4.127, abs=1e-3)
    # Layers that are created afterwards have real values.
    assert NF4Linear(nn.Linear(64, 4)).dequantize().isfinite().all()


def test_layers_that_cannot_be_quantized_raise():
    model = decoder()
    with pytest.raises(ValueError, match="no linear layer matches"):
        quantize_linears(model, NF4Linear, ("*.q_proj",))
    quantize_linears(model, Int8Linear, ("*.query",))
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.query, .* is quantized already"):
        quantize_linears(model, NF4Linear, ("blocks.*",))
    add_adapters(model, AdapterConfig(("*.query",)))
    with pytest.raises(ValueError, match="quantize it first"):
        quantize_linears(model, Int8Linear, ("*.key",))


@pytest.mark.parametrize("rows", [(1,), (1, 1), (2, 3), (16,)])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_product_is_close_to_the_restored_one(rows, bias):
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(96, 33, bias=bias))
    x = torch.randn(*rows, 96)
    expected = F.linear(x, layer.dequantize(), layer.bias)
    with torch.no_grad():
        product = layer(x)
    assert product.shape == expected.shape and product.dtype == expected.dtype
    # Inputs and sums are rounded to bfloat16: not equal, and close.
    error = (product - expected).norm() / expected.norm()
    assert 0 < error < 0.01


@pytest.mark.parametrize(("width", "rows"), [(48, 1), (96, 17), (96, 0)])
def test_other_widths_and_many_rows_restore_the_weight(width, rows):
    layer, x = Int8Linear(nn.Linear(width, 8)), torch.randn(rows, width)
    with torch.no_grad():
        assert torch.equal(layer(x), F.linear(x, layer.dequantize(), layer.bias))


def test_packed_product_scales_every_output_in_float32():
    weight = torch.diag(torch.tensor([1.0, 1000.0, 0.001] + [1.0] * 29))
    codes, scales = quantize_int8(weight)
    torch.testing.assert_close(packed_product(torch.ones(1, 32), codes, scales)[0], weight.diagonal())
