"""Convolution and pooling written by hand in PyTorch: by their definitions, and as one matrix product.

`torch.nn.functional.conv2d` returns the same values and gradients, and is far faster; the networks of this part use it.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Images = Float[Tensor, "batch channels height width"]
Kernel = Float[Tensor, "out channels size size"]


def conv2d_direct(
    images: Images, kernel: Kernel, bias: Float[Tensor, " out"] | None = None, stride: int = 1, padding: int = 0
) -> Float[Tensor, "batch out rows columns"]:
    """Convolve by sliding a window: at each position, sum its elementwise product with every kernel.

    Like all of deep learning this computes a cross-correlation: the kernel is not flipped. A learned kernel can be
    either. Raises ValueError when no window fits.
    """
    # exercise 0.11: convolve by sliding a window
    size = kernel.shape[-1]
    rows, columns = (output_size(side, size, stride, padding) for side in images.shape[-2:])
    padded = F.pad(images, (padding,) * 4)
    outputs = []
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            window = padded[:, :, top : top + size, left : left + size]
            outputs.append(torch.einsum("bcij,ocij->bo", window, kernel))
    result = torch.stack(outputs, dim=-1).unflatten(-1, (rows, columns))
    return result if bias is None else result + bias[:, None, None]
    # end exercise


def im2col(images: Images, size: int, stride: int = 1, padding: int = 0) -> Float[Tensor, "batch positions window"]:
    """Return every window as a row, positions in row-major order.

    Within a window the values are ordered by channel, then row, then column. Raises ValueError when no window fits.
    """
    # exercise 0.12: lay out every window as a row
    for side in images.shape[-2:]:
        output_size(side, size, stride, padding)
    padded = F.pad(images, (padding,) * 4)
    # `unfold` only changes strides: no value is copied until `rearrange`.
    windows = padded.unfold(2, size, stride).unfold(3, size, stride)
    return rearrange(windows, "batch channels rows columns i j -> batch (rows columns) (channels i j)")
    # end exercise


def conv2d(
    images: Images, kernel: Kernel, bias: Float[Tensor, " out"] | None = None, stride: int = 1, padding: int = 0
) -> Float[Tensor, "batch out rows columns"]:
    """Convolve by one matrix product: every window as a row, times every kernel as a column."""
    rows, columns = (output_size(side, kernel.shape[-1], stride, padding) for side in images.shape[-2:])
    outputs = F.linear(im2col(images, kernel.shape[-1], stride, padding), kernel.flatten(1), bias)
    return rearrange(outputs, "batch (rows columns) out -> batch out rows columns", rows=rows, columns=columns)


def max_pool2d(images: Images, size: int, stride: int | None = None) -> Float[Tensor, "batch channels rows columns"]:
    """Return the maximum of every window of each channel; `stride` is `size` unless given."""
    return windows_per_channel(images, size, stride or size).amax(dim=-1)


def mean_pool2d(images: Images, size: int, stride: int | None = None) -> Float[Tensor, "batch channels rows columns"]:
    """Return the mean of every window of each channel; `stride` is `size` unless given."""
    return windows_per_channel(images, size, stride or size).mean(dim=-1)


def windows_per_channel(images: Images, size: int, stride: int) -> Float[Tensor, "batch channels rows columns window"]:
    """Return the windows of each channel separately."""
    # exercise 0.13: windows to pool
    rows, columns = (output_size(side, size, stride, 0) for side in images.shape[-2:])
    # Pooling never mixes channels, so each channel is treated as an image with one channel.
    channels = rearrange(images, "batch channels height width -> (batch channels) 1 height width")
    windows = im2col(channels, size, stride)
    return windows.unflatten(0, images.shape[:2]).unflatten(2, (rows, columns))
    # end exercise


def output_size(length: int, size: int, stride: int, padding: int) -> int:
    """Return the number of positions of a window of `size` along a side of `length`.

    Raises ValueError when the window does not fit, or for a size or stride below 1.
    """
    if size < 1 or stride < 1 or padding < 0:
        raise ValueError(f"size {size}, stride {stride}, padding {padding}: expected size ≥ 1, stride ≥ 1, padding ≥ 0")
    if length + 2 * padding < size:
        raise ValueError(f"a window of {size} does not fit into {length} + 2 · {padding}; use a smaller window")
    return (length + 2 * padding - size) // stride + 1
