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
    """Return bitsandbytes' results for a weight of 80 × 256, and for one of 7 × 33, whose last block is not full."""
    return load_file(Path(__file__).parent / "expected" / "nf4.safetensors")


def test_the_published_levels_are_quantiles_of_the_normal_distribution():
    assert normal_float_levels() == pytest.approx(LEVELS, abs=5e-7)
    assert len(set(LEVELS)) == 16 and LEVELS[7] == 0.0 and (LEVELS[0], LEVELS[15]) == (-1.0, 1.0)


def test_nf4_has_a_smaller_error_and_uses_levels_more_evenly_than_equal_steps():
    weight = torch.randn(4096, BLOCK)
    packed, largest = quantize_nf4(weight)
    restored = dequantize_nf4(packed, largest, (4096, BLOCK))
    codes = torch.stack((packed >> 4, packed & 15)).flatten().int()
    steps = largest[:, None] * 2 / 15
    even_codes = (weight / steps - 0.5).round()
    even = (even_codes + 0.5) * steps
    errors = [(each - weight).abs().mean() for each in (restored, even)]
    assert errors[0] < 0.87 * errors[1]
    entropies = []
    for all_codes in (codes, (even_codes + 8).flatten().int()):
        fractions = torch.bincount(all_codes, minlength=16) / all_codes.numel()
        entropies.append(-(fractions * fractions.clamp(min=1e-9).log2()).sum())
    assert 3.8 < entropies[0] < 4 and entropies[1] < entropies[0] - 0.2


@pytest.mark.parametrize("name", ["whole", "ragged"])
def test_codes_and_scales_equal_bitsandbytes(stored, name):
    weight = stored[f"{name}.weight"]
    packed, largest = quantize_nf4(weight)
    assert torch.equal(packed, stored[f"{name}.packed"]) and torch.equal(largest, stored[f"{name}.largest"])
    restored = dequantize_nf4(packed, largest, tuple(weight.shape))
    assert torch.equal(restored[:7], stored[f"{name}.again"])


def test_quantized_scales_equal_bitsandbytes(stored):
    assert torch.equal(dynamic_levels(), stored["levels"])
    linear = nn.Linear(256, 80, bias=False)
    linear.weight.data = stored["whole.weight"]
    layer = NF4Linear(linear)
    assert len(layer.scale_codes) == 320 > GROUP
    assert torch.equal(layer.scale_codes, stored["codes"]) and torch.equal(layer.scale_groups, stored["groups"])
    assert torch.equal(layer.scale_mean, stored["whole.largest"].mean())


def test_a_byte_contains_two_codes_the_first_in_the_upper_half():
    weight = torch.zeros(1, 64)
    weight[0, :3] = torch.tensor([1.0, -1.0, LEVELS[9]])
    packed, largest = quantize_nf4(weight)
    assert packed[:2].tolist() == [0xF0, 0x97] and largest.tolist() == [1.0] and len(packed) == 32


def test_every_level_is_exact_and_each_block_has_its_own_scale():
    levels = torch.tensor(LEVELS).repeat(8)
    weight = torch.cat((levels[:BLOCK] * 3, levels[:BLOCK] * 1e-3)).view(2, 64)
    packed, largest = quantize_nf4(weight)
    assert largest.tolist() == pytest.approx([3.0, 1e-3])
    torch.testing.assert_close(dequantize_nf4(packed, largest, (2, 64)), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 64), (1, 65), (2, 127)])
def test_the_error_is_bounded_for_weights_of_any_size(shape):
    weight = torch.randn(shape)
    packed, largest = quantize_nf4(weight)
    count = weight.numel()
    assert len(packed) == (count + 1) // 2 and len(largest) == -(-count // BLOCK)
    restored = dequantize_nf4(packed, largest, shape)
    bound = largest.repeat_interleave(BLOCK)[:count].view(shape) * (1 - LEVELS[14]) / 2
    # The widest gap is below the largest level (and, slightly wider, above the smallest).
    assert restored.shape == weight.shape and ((restored - weight).abs() <= bound * 1.1 + 1e-6).all()


def test_zeros_are_exact():
    linear = nn.Linear(64, 4)
    nn.init.zeros_(linear.weight)
    assert torch.equal(NF4Linear(linear).dequantize(), torch.zeros(4, 64))
    nn.init.normal_(linear.weight)
    linear.weight.data[1, 7] = 0
    assert NF4Linear(linear).dequantize()[1, 7] == 0


def test_eight_bit_codes_are_the_nearest_levels():
    values = torch.randn(700)
    codes, largest = quantize_blocks(values)
    assert len(largest) == 3 and len(codes) == 700
    relative = values / largest.repeat_interleave(GROUP)[:700]
    nearest = (relative[:, None] - dynamic_levels()).abs().argmin(dim=1)
    assert torch.equal(codes.int(), nearest.int())
    restored = dequantize_blocks(codes, largest)
    assert (restored - values).abs().max() < 0.008 * largest.max()
    assert (dequantize_blocks(*quantize_blocks(torch.zeros(5)))).tolist() == [0.0] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(7, 31), (96, 320)])
def test_results_equal_bitsandbytes_live(shape, dtype):
    bitsandbytes = pytest.importorskip("bitsandbytes.functional", reason="pip install -r requirements/oracles.txt")
    weight = (torch.randn(shape) * 0.05).to(dtype)
    packed, state = bitsandbytes.quantize_4bit(weight, quant_type="nf4")
    codes, largest = quantize_nf4(weight)
    assert torch.equal(codes, packed.flatten()) and torch.equal(largest, state.absmax)
    expected = bitsandbytes.dequantize_4bit(packed, state)
    assert torch.equal(dequantize_nf4(codes, largest, shape).to(dtype), expected)
    double = bitsandbytes.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)[1]
    linear = nn.Linear(shape[1], shape[0], bias=False)
    linear.weight.data = weight
    layer = NF4Linear(linear)
    assert torch.equal(layer.scale_groups, double.state2.absmax) and torch.equal(layer.scale_mean, double.offset)
    # The compiled CPU kernel looks up levels in a table of 65,536; near the middle of two it may choose the other.
    levels = dynamic_levels()
    relative = (largest - layer.scale_mean) / layer.scale_groups.repeat_interleave(GROUP)[: len(largest)].clamp(1e-38)
    worse = (levels[double.absmax.int()] - relative).abs() - (levels[layer.scale_codes.int()] - relative).abs()
    assert (worse[relative.isfinite() & (layer.scale_groups.max() > 0)] < 1e-4).all()
