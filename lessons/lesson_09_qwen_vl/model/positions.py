"""Multimodal rotary positions: three ids per token, for time, row and column (M-RoPE, arXiv:2409.12191, section 2.1).

A text token has three equal ids, so that M-RoPE is ordinary rotary embedding for text. A visual token has the ids of
its frame, row and column. Qwen2.5-VL measures time in seconds (arXiv:2502.13923, section 2.1.3). In Qwen3-VL each frame
is a block of tokens with its time as text before it, and the axes alternate along a head (arXiv:2511.21631, section 2).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TEXT, IMAGE, VIDEO = 0, 1, 2
"""The kinds of tokens."""


class TokenGrid(NamedTuple):
    """The merged tokens of one image, video or frame; `time_step` is the distance of two frames in time ids."""

    frames: int
    rows: int
    columns: int
    time_step: float = 1.0


def visual_ids(frames: int, rows: int, columns: int, time_step: float = 1.0) -> Int[Tensor, "tokens 3"]:
    """Return the time, row and column ids of a grid of tokens, counted from 0: frame by frame, row by row.

    time_step  time ids per frame; the product with the number of the frame is rounded down
    """
    # exercise 9.3: the ids of a grid
    time = (torch.arange(frames) * time_step).long()
    axes = torch.meshgrid(time, torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(axes, dim=-1).flatten(0, 2)
    # end exercise


def mrope_ids(kinds: Sequence[int], grids: Mapping[int, Iterator[TokenGrid]]) -> Int[Tensor, "tokens 3"]:
    """Return the ids of a sequence of text and visual tokens.

    Each text token and each grid starts one after the largest id before it, on all three axes (section 2.1).

    kinds  TEXT, IMAGE or VIDEO for each token
    grids  for IMAGE and for VIDEO, the grids in reading order; as many are taken as the sequence has

    Raises ValueError when a grid is missing or does not fit the run of visual tokens.
    """
    kinds, blocks = list(kinds), []
    index = start = 0
    while index < len(kinds):
        if kinds[index] == TEXT:
            block = torch.zeros(1, 3, dtype=torch.long)
        else:
            block = _next_block(kinds, index, grids)
        blocks.append(start + block)
        start += int(block.max()) + 1
        index += len(block)
    return torch.cat(blocks) if blocks else torch.zeros(0, 3, dtype=torch.long)


def _next_block(
    kinds: list[int], index: int, grids: Mapping[int, Iterator[TokenGrid]]
) -> Int[Tensor, "block_tokens 3"]:
    kind = kinds[index]
    name = "image" if kind == IMAGE else "video"
    grid = next(grids[kind], None) if kind in grids else None
    if grid is None:
        raise ValueError(f"the text has more {name} tokens than the {name}s take; token {index} has no {name}")
    block = visual_ids(*grid)
    if kinds[index : index + len(block)] != [kind] * len(block):
        raise ValueError(
            f"the {name} tokens from token {index} on are fewer than the {len(block)} of a grid of {grid.frames} × "
            f"{grid.rows} × {grid.columns}; expand each {name} to as many tokens as it has"
        )
    return block


def sequential_ids(tokens: int) -> Int[Tensor, "tokens 3"]:
    """Return one-dimensional positions as three equal ids, the baseline without M-RoPE."""
    return torch.arange(tokens)[:, None].expand(-1, 3)


def largest_id(frames: int, rows: int, columns: int, time_step: float = 1.0) -> int:
    """Return the largest M-RoPE id of a grid that starts at 0: the longest axis, not the number of tokens."""
    return max(int((torch.tensor([frames - 1]) * time_step).long()), rows - 1, columns - 1)


def pair_axes(sections: Sequence[int], interleaved: bool) -> Int[Tensor, "pairs"]:
    """Return the axis of each rotary pair of a head: 0 for time, 1 for the row, 2 for the column.

    sections     number of pairs per axis
    interleaved  False: time has the first and highest frequencies, then row, then column (Qwen2-VL, Qwen2.5-VL).
                 True: row and column have every third pair from 1 and from 2 on, time has the rest (Qwen3-VL)
    """
    # exercise 9.4: the axis of each pair
    if not interleaved:
        return torch.repeat_interleave(torch.arange(3), torch.tensor(sections))
    axes = torch.zeros(sum(sections), dtype=torch.long)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = axis
    return axes
    # end exercise


def mrope_angles(
    ids: Int[Tensor, "batch tokens 3"], frequencies: Float[Tensor, "pairs"], axes: Int[Tensor, "pairs"]
) -> Float[Tensor, "batch tokens pairs"]:
    """Return the rotary angle of every pair: the id on the pair's axis, times the pair's frequency."""
    # exercise 9.5: angles from three ids
    return ids[..., axes].to(frequencies.dtype) * frequencies
    # end exercise
