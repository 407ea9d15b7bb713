"""The parts of the vision tokenizer that act within one frame (MoVQGAN: arXiv:2209.09002).

The decoder's norms are modulated by the codes: after normalization, each place is scaled and shifted by linear
functions of the codebook vector at that place. GroupNorm alone would remove what is constant over a frame, and the
modulation restores differences between places that share a code.
"""

from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_11_chameleon.model.config import GROUPS
from lessons.lesson_11_chameleon.model.residual_block import group_norm
from lessons.lesson_12_emu3.model.config import VisionTokenizerConfig
from shared.transformer import Attention

Maps = Float[Tensor, "frames channels height width"]
Entries = Float[Tensor, "frames code_dim rows columns"]


def modulate(
    normalized: Maps,
    entries: Entries,
    gain: tuple[Float[Tensor, "channels code_dim"], Float[Tensor, "channels"]],
    shift: tuple[Float[Tensor, "channels code_dim"], Float[Tensor, "channels"]],
) -> Maps:
    """Return normalized · gain(entries) + shift(entries), place by place (arXiv:2209.09002, eq. 6).

    entries      codebook vectors; each takes the nearest place of the larger feature map
    gain, shift  weight and bias of a linear layer over the dimensions of an entry
    """
    # exercise 12.2: a norm that is modulated by the codes
    places = F.interpolate(entries, size=normalized.shape[-2:], mode="nearest")
    scale, offset = (
        torch.einsum("oc,fchw->fohw", weight, places) + bias[:, None, None] for weight, bias in (gain, shift)
    )
    return normalized * scale + offset
    # end exercise


class ModulatedNorm(nn.Module):
    """GroupNorm whose output is scaled and shifted by the codebook vector at each place."""

    def __init__(self, channels: int, code_dim: int):
        super().__init__()
        self.norm = group_norm(channels, GROUPS)
        self.gain, self.shift = nn.Linear(code_dim, channels), nn.Linear(code_dim, channels)

    def forward(self, x: Maps, entries: Entries) -> Maps:
        gain, shift = ((layer.weight, layer.bias) for layer in (self.gain, self.shift))
        return modulate(self.norm(x), entries, gain, shift)


class PlainNorm(nn.Module):
    """GroupNorm, with the interface of `ModulatedNorm`."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels, GROUPS)

    def forward(self, x: Maps, entries: Entries | None = None) -> Maps:
        return self.norm(x)


def new_norm(channels: int, code_dim: int | None) -> nn.Module:
    """Return the encoder's norm, or with a dimension of codes the decoder's."""
    return PlainNorm(channels) if code_dim is None else ModulatedNorm(channels, code_dim)


class FrameBlock(nn.Module):
    """Compute x + conv(silu(norm(conv(silu(norm(x)))))) within each frame.

    code_dim  with it, the norms are modulated by codebook vectors of this dimension
    """

    def __init__(self, in_channels: int, out_channels: int, code_dim: int | None = None):
        super().__init__()
        self.first_norm = new_norm(in_channels, code_dim)
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second_norm = new_norm(out_channels, code_dim)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Maps, entries: Entries | None = None) -> Float[Tensor, "frames out_channels height width"]:
        update = self.first(F.silu(self.first_norm(x, entries)))
        update = self.second(F.silu(self.second_norm(update, entries)))
        return self.shortcut(x) + update


class FrameAttention(nn.Module):
    """x + attention(norm(x)) among all places of a frame."""

    def __init__(self, config: VisionTokenizerConfig, code_dim: int | None = None):
        super().__init__()
        self.norm = new_norm(config.attention_width, code_dim)
        self.attention = Attention(config.attention_width, config.attention_heads)

    def forward(self, x: Maps, entries: Entries | None = None) -> Maps:
        places = self.norm(x, entries).flatten(2).transpose(1, 2)
        return x + self.attention(places).transpose(1, 2).unflatten(2, x.shape[2:])


class Middle(nn.Module):
    """Two residual blocks with attention between them, at the lowest resolution."""

    def __init__(self, config: VisionTokenizerConfig, code_dim: int | None = None):
        super().__init__()
        width = config.attention_width
        self.first = FrameBlock(width, width, code_dim)
        self.attention = FrameAttention(config, code_dim)
        self.second = FrameBlock(width, width, code_dim)

    def forward(self, x: Maps, entries: Entries | None = None) -> Maps:
        return self.second(self.attention(self.first(x, entries), entries), entries)


class Resolution(nn.Module):
    """The residual blocks at one resolution, each perhaps followed by attention, and the change of the side after them.

    channels  of the input and of the output
    resize    a module that halves or doubles the side; None at the last resolution
    """

    def __init__(
        self,
        config: VisionTokenizerConfig,
        level: int,
        channels: tuple[int, int],
        blocks: int,
        resize: nn.Module | None,
        code_dim: int | None = None,
    ):
        super().__init__()
        widths = [channels[0], *[channels[1]] * blocks]
        self.blocks = nn.ModuleList(FrameBlock(before, after, code_dim) for before, after in pairwise(widths))
        with_attention = level in config.attention_levels
        self.attentions = nn.ModuleList(FrameAttention(config, code_dim) for _ in range(blocks * with_attention))
        self.resize = resize

    def forward(
        self, x: Maps, entries: Entries | None = None
    ) -> Float[Tensor, "frames out_channels out_height out_width"]:
        for place, block in enumerate(self.blocks):
            x = block(x, entries)
            if len(self.attentions):
                x = self.attentions[place](x, entries)
        return x if self.resize is None else cast(Tensor, self.resize(x))


class HalveSides(nn.Module):
    """A convolution with a stride of two, with zeros on the right and below only: 2n pixels → n."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Maps) -> Float[Tensor, "frames channels rows columns"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class DoubleSides(nn.Module):
    """Each place is repeated 2 × 2 times, then convolved: n pixels → 2n."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Maps) -> Float[Tensor, "frames channels rows columns"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
