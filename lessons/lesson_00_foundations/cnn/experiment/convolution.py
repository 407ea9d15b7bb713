"""Convolution and pooling by hand, in PyTorch: as the definition says, and as one matrix product.

`torch.nn.functional.conv2d` computes the same, values and gradients, and far faster; the networks of this part use it.
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
    """Slide a window over the image, and at each place multiply it number by number with every kernel and add up.

    It is called convolution, though the kernel is not turned round as in mathematics: what is learned does not care.
    Raises ValueError when no window fits.
    """
    # exercise 0.11: convolve by sliding a window
    size = kernel.shape[-1]
    rows, columns = (output_size(side, size, stride, padding) for side in images.shape[-2:])
    padded = F.pad(images, (padding,) * 4)
    places = []
    for row in range(rows):
        for column in range(columns):
            down, right = row * stride, column * stride
            window = padded[:, :, down : down + size, right : right + size]
            places.append(torch.einsum("bcij,ocij->bo", window, kernel))
    result = torch.stack(places, dim=-1).unflatten(-1, (rows, columns))
    return result if bias is None else result + bias[:, None, None]
    # end exercise


def im2col(images: Images, size: int, stride: int = 1, padding: int = 0) -> Float[Tensor, "batch places window"]:
    """Every window as a row; places in reading order, and within a window the channel first, then row and column.

    Raises ValueError when no window fits.
    """
    # exercise 0.12: lay out every window as a row
    for side in images.shape[-2:]:
        output_size(side, size, stride, padding)
    padded = F.pad(images, (padding,) * 4)
    # `unfold` only makes strides: no number is copied before the rows are laid out.
    windows = padded.unfold(2, size, stride).unfold(3, size, stride)
    return rearrange(windows, "batch channels rows columns i j -> batch (rows columns) (channels i j)")
    # end exercise


def conv2d(
    images: Images, kernel: Kernel, bias: Float[Tensor, " out"] | None = None, stride: int = 1, padding: int = 0
) -> Float[Tensor, "batch out rows columns"]:
    """The same as one matrix product: every window, as a row, times every kernel, as a column."""
    rows, columns = (output_size(side, kernel.shape[-1], stride, padding) for side in images.shape[-2:])
    answers = F.linear(im2col(images, kernel.shape[-1], stride, padding), kernel.flatten(1), bias)
    return rearrange(answers, "batch (rows columns) out -> batch out rows columns", rows=rows, columns=columns)


def max_pool2d(images: Images, size: int, stride: int | None = None) -> Float[Tensor, "batch channels rows columns"]:
    """The greatest number of every window, channel by channel; windows lie side by side unless `stride` says otherwise."""
    return _windows_of_each_channel(images, size, stride or size).amax(dim=-1)


def mean_pool2d(images: Images, size: int, stride: int | None = None) -> Float[Tensor, "batch channels rows columns"]:
    """The mean of every window, channel by channel."""
    return _windows_of_each_channel(images, size, stride or size).mean(dim=-1)


def _windows_of_each_channel(
    images: Images, size: int, stride: int
) -> Float[Tensor, "batch channels rows columns window"]:
    # exercise 0.13: windows to pool
    rows, columns = (output_size(side, size, stride, 0) for side in images.shape[-2:])
    # Pooling never mixes channels: each is an image of its own.
    alone = rearrange(images, "batch channels height width -> (batch channels) 1 height width")
    windows = im2col(alone, size, stride)
    return windows.unflatten(0, images.shape[:2]).unflatten(2, (rows, columns))
    # end exercise


def output_size(length: int, size: int, stride: int, padding: int) -> int:
    """How many places a window of `size` finds along a side of `length`.

    Raises ValueError when it finds none, or for a size or stride below 1.
    """
    if size < 1 or stride < 1 or padding < 0:
        raise ValueError(f"size {size}, stride {stride}, padding {padding}: expected size ≥ 1, stride ≥ 1, padding ≥ 0")
    if length + 2 * padding < size:
        raise ValueError(f"a window of {size} does not fit into {length} + 2 · {padding}; pad more or look closer")
    return (length + 2 * padding - size) // stride + 1
