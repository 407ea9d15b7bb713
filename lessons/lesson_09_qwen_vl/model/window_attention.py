"""Window attention: most blocks of Qwen2.5-VL attend within squares of 8 × 8 patches (arXiv:2502.13923, section 2.1.1).

The cost of full attention grows with the square of an image's patches, that of window attention with their number.
Tokens are reordered once, so that a window's tokens follow each other; a window then is one segment of the mask, and a
kernel skips the rest. The order is restored after the merger. Windows at the right and lower border may be smaller.
"""

from math import ceil

import torch
from jaxtyping import Int
from torch import Tensor


def grid_windows(frames: int, rows: int, columns: int, side: int) -> Int[Tensor, "tokens"]:
    """Return the window of each merged token of one image or video; every frame has windows of its own.

    Tokens come frame by frame and row by row, and windows are numbered in the same order.

    side  of a window in tokens
    """
    # exercise 9.6: the window of each token
    down, across = ceil(rows / side), ceil(columns / side)
    row, column = torch.arange(rows) // side, torch.arange(columns) // side
    windows = row[:, None] * across + column
    return (torch.arange(frames)[:, None, None] * down * across + windows).flatten()
    # end exercise


def token_windows(grids: Int[Tensor, "items 3"], merge_size: int, side: int) -> Int[Tensor, "tokens"]:
    """Return the window of each merged token of several images or videos, numbered over all of them.

    grids  frames, and rows and columns of patches
    """
    windows, first = [], 0
    for frames, rows, columns in grids.tolist():
        windows.append(first + grid_windows(frames, rows // merge_size, columns // merge_size, side))
        first = int(windows[-1].max()) + 1
    return torch.cat(windows).to(grids.device)


def window_order(windows: Int[Tensor, "tokens"]) -> tuple[Int[Tensor, "tokens"], Int[Tensor, "tokens"]]:
    """Return the order in which a window's tokens follow each other, and its inverse.

    `x[order][inverse]` is `x`. Within a window, tokens stay in reading order.
    """
    # exercise 9.7: reorder, and back
    order = windows.argsort(stable=True)
    return order, order.argsort()
    # end exercise


def expand_to_patches(order: Int[Tensor, "tokens"], patches_per_token: int) -> Int[Tensor, "patches"]:
    """Return the order of patches that belongs to an order of merged tokens, whose patches follow each other."""
    return (order[:, None] * patches_per_token + torch.arange(patches_per_token, device=order.device)).flatten()
