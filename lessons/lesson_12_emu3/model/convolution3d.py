"""3-D convolutions that are causal in time, and the halving and doubling of the number of frames.

    x [batch, channels, frames, height, width]

Zeros are added before the first frame and none after the last one. A code thus depends on its own frames and on earlier
ones, so that a video can be encoded and decoded while it is being generated.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

TimeMaps = Float[Tensor, "batch channels frames height width"]

EARLIER_FRAMES = 2
"""Frames of zeros before the first frame: three frames per kernel, or four with a stride of two."""


def swish(x: Tensor) -> Tensor:
    """Return x · sigmoid(x)."""
    return x * torch.sigmoid(x)


def pad_causally(
    x: TimeMaps, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> Float[Tensor, "batch channels padded_frames padded_height padded_width"]:
    """Add zeros so that a convolution looks back in time only, and divides height and width by the stride.

    kernel, stride  of time, height and width

    Height and width get kernel − stride zeros each; of an odd number, the larger half is above or on the left.
    """
    # exercise 12.1: padding of a causal convolution
    height, width = (size - step for size, step in zip(kernel[1:], stride[1:], strict=True))
    spatial = (width - width // 2, width // 2, height - height // 2, height // 2)
    return F.pad(x, (*spatial, EARLIER_FRAMES, 0))
    # end exercise


def repeat_frames(x: TimeMaps) -> Float[Tensor, "batch channels 2*frames height width"]:
    """Return each frame twice: frames 0, 1, 2 become 0, 0, 1, 1, 2, 2."""
    return x.repeat_interleave(2, dim=2)


class CausalConv3d(nn.Module):
    """Convolve in time, height and width; an output depends on no later frame than those that it stands for."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        stride: tuple[int, int, int] = (1, 1, 1),
    ):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride=stride)

    def forward(self, x: TimeMaps) -> Float[Tensor, "batch out_channels out_frames out_height out_width"]:
        return self.conv(pad_causally(x, self.conv.kernel_size, self.conv.stride))


class HalveFrames(CausalConv3d):
    """Convolve four frames with a stride of two: 2n frames → n."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, (4, 3, 3), (2, 1, 1))


class DoubleFrames(CausalConv3d):
    """Repeat each frame and convolve: n frames → 2n."""

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: TimeMaps) -> Float[Tensor, "batch out_channels out_frames out_height out_width"]:
        return super().forward(repeat_frames(x))


class TemporalBlock(nn.Module):
    """Compute x + conv(swish(norm(conv(swish(norm(x)))))) with causal 3-D convolutions.

    BatchNorm is a fixed scale and offset per channel in evaluation mode, and so mixes no frames.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first_norm, self.second_norm = nn.BatchNorm3d(channels), nn.BatchNorm3d(channels)
        self.first, self.second = CausalConv3d(channels, channels), CausalConv3d(channels, channels)

    def forward(self, x: TimeMaps) -> TimeMaps:
        update = self.first(swish(self.first_norm(x)))
        return x + self.second(swish(self.second_norm(update)))
