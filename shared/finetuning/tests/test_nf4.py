"""NF4 with double quantization: the levels, the packing, the scales; bit for bit what `bitsandbytes` stores."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shared.finetuning import NF4Linear, dequantize_nf4, normal_float_levels, quantize_nf4
from shared.finetuning.blockwise_8bit import GROUP, dequantize_blocks, dynamic_levels, quantize_blocks
from shared.finetuning.nf4 import BLOCK, LEVELS


@pytest.fixture(scope="module")
def stored():
    """What bitsandbytes made of a weight of 80 × 256, and of one of 7 × 33, whose last block is not full."""
    return load_file(Path(__file__).parent / "expected" / "nf4.safetensors")


def test_the_published_levels_are_the_normal_distributions():
    assert normal_float_levels() == pytest.approx(LEVELS, abs=5e-7)
    assert len(set(LEVELS)) == 16 and LEVELS[7] == 0.0 and (LEVELS[0], LEVELS[15]) == (-1.0, 1.0)


def test_normal_weights_come_back_nearer_than_from_equal_steps_and_use_the_levels_more_evenly():
    weight = torch.randn(4096, BLOCK)
    packed, largest = quantize_nf4(weight)
    again = dequantize_nf4(packed, largest, (4096, BLOCK))
    codes = torch.stack((packed >> 4, packed & 15)).flatten().int()
    steps = largest[:, None] * 2 / 15
    even_codes = (weight / steps - 0.5).round()
    even = (even_codes + 0.5) * steps
    errors = [(each - weight).abs().mean() for each in (again, even)]
    assert errors[0] < 0.87 * errors[1]
    entropies = []
    for numbers in (codes, (even_codes + 8).flatten().int()):
        shares = torch.bincount(numbers, minlength=16) / numbers.numel()
        entropies.append(-(shares * shares.clamp(min=1e-9).log2()).sum())
    assert 3.8 < entropies[0] < 4 and entropies[1] < entropies[0] - 0.2


@pytest.mark.parametrize("name", ["whole", "ragged"])
def test_codes_and_scales_are_those_of_bitsandbytes(stored, name):
    weight = stored[f"{name}.weight"]
    packed, largest = quantize_nf4(weight)
    assert torch.equal(packed, stored[f"{name}.packed"]) and torch.equal(largest, stored[f"{name}.largest"])
    again = dequantize_nf4(packed, largest, tuple(weight.shape))
    assert torch.equal(again[:7], stored[f"{name}.again"])


def test_scales_are_quantized_once_more_as_bitsandbytes_does(stored):
    assert torch.equal(dynamic_levels(), stored["levels"])
    linear = nn.Linear(256, 80, bias=False)
    linear.weight.data = stored["whole.weight"]
    layer = NF4Linear(linear)
    assert len(layer.scale_codes) == 320 > GROUP
    assert torch.equal(layer.scale_codes, stored["codes"]) and torch.equal(layer.scale_groups, stored["groups"])
    assert torch.equal(layer.scale_mean, stored["whole.largest"].mean())


def test_a_byte_holds_two_weights_the_first_in_the_upper_half():
    weight = torch.zeros(1, 64)
    weight[0, :3] = torch.tensor([1.0, -1.0, LEVELS[9]])
    packed, largest = quantize_nf4(weight)
    assert packed[:2].tolist() == [0xF0, 0x97] and largest.tolist() == [1.0] and len(packed) == 32


def test_every_level_comes_back_as_itself_and_each_block_has_a_scale_of_its_own():
    levels = torch.tensor(LEVELS).repeat(8)
    weight = torch.cat((levels[:BLOCK] * 3, levels[:BLOCK] * 1e-3)).view(2, 64)
    packed, largest = quantize_nf4(weight)
    assert largest.tolist() == pytest.approx([3.0, 1e-3])
    torch.testing.assert_close(dequantize_nf4(packed, largest, (2, 64)), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 64), (1, 65), (2, 127)])
def test_weights_of_any_size_come_back_near(shape):
    weight = torch.randn(shape)
    packed, largest = quantize_nf4(weight)
    count = weight.numel()
    assert len(packed) == (count + 1) // 2 and len(largest) == -(-count // BLOCK)
    again = dequantize_nf4(packed, largest, shape)
    bound = largest.repeat_interleave(BLOCK)[:count].view(shape) * (1 - LEVELS[14]) / 2
    # The widest gap is the one below the largest (and, a little wider, the one above the smallest).
    assert again.shape == weight.shape and ((again - weight).abs() <= bound * 1.1 + 1e-6).all()


def test_zeros_stay_zeros():
    linear = nn.Linear(64, 4)
    nn.init.zeros_(linear.weight)
    assert torch.equal(NF4Linear(linear).dequantize(), torch.zeros(4, 64))
    nn.init.normal_(linear.weight)
    linear.weight.data[1, 7] = 0
    assert NF4Linear(linear).dequantize()[1, 7] == 0


def test_scales_in_eight_bits_are_nearest_levels():
    numbers = torch.randn(700)
    codes, largest = quantize_blocks(numbers)
    assert len(largest) == 3 and len(codes) == 700
    relative = numbers / largest.repeat_interleave(GROUP)[:700]
    nearest = (relative[:, None] - dynamic_levels()).abs().argmin(dim=1)
    assert torch.equal(codes.int(), nearest.int())
    again = dequantize_blocks(codes, largest)
    assert (again - numbers).abs().max() < 0.008 * largest.max()
    assert (dequantize_blocks(*quantize_blocks(torch.zeros(5)))).tolist() == [0.0] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7, 31), (96, 320)])
def test_bitsandbytes_itself_agrees(shape, dtype):
    theirs = pytest.importorskip("bitsandbytes.functional", reason="pip install -r requirements/oracles.txt")
    weight = (torch.randn(shape) * 0.05).to(dtype)
    packed, state = theirs.quantize_4bit(weight, quant_type="nf4")
    ours, largest = quantize_nf4(weight)
    assert torch.equal(ours, packed.flatten()) and torch.equal(largest, state.absmax)
    again = theirs.dequantize_4bit(packed, state)
    assert torch.equal(dequantize_nf4(ours, largest, shape).to(dtype), again)
    double = theirs.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)[1]
    linear = nn.Linear(shape[1], shape[0], bias=False)
    linear.weight.data = weight
    layer = NF4Linear(linear)
    assert torch.equal(layer.scale_groups, double.state2.absmax) and torch.equal(layer.scale_mean, double.offset)
    # The compiled CPU kernel looks levels up in a table of 65,536: beside the middle of two it may take the other one.
    levels = dynamic_levels()
    relative = (largest - layer.scale_mean) / layer.scale_groups.repeat_interleave(GROUP)[: len(largest)].clamp(1e-38)
    worse = (levels[double.absmax.int()] - relative).abs() - (levels[layer.scale_codes.int()] - relative).abs()
    assert (worse[relative.isfinite() & (layer.scale_groups.max() > 0)] < 1e-4).all()
