"""Frames → patches in merge order: the four patches of one token follow each other (arXiv:2409.12191, section 2.1).

A patch covers `frames_per_patch` frames. A still image is a video of one frame, which is repeated to fill its patches.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class VisualInput:
    """The patches of several images, or of several videos.

    patches            all items one after another, in merge order: channel, frame, row and column of a patch's values
    grids              frames (steps of `frames_per_patch`), rows and columns of patches of each item
    seconds_per_frame  seconds between two of these steps, for each video in Qwen2.5-VL; 1 when left out
    """

    patches: Float[Tensor, "patches values"]
    grids: Int[Tensor, "items 3"]
    seconds_per_frame: Float[Tensor, "items"] | None = None

    def __post_init__(self) -> None:
        if len(self.patches) != int(self.grids.prod(dim=1).sum()):
            raise ValueError(
                f"{len(self.patches)} patches do not fill the grids {self.grids.tolist()}; expected "
                f"{int(self.grids.prod(dim=1).sum())}"
            )

    @classmethod
    def from_frames(
        cls,
        items: list[Float[Tensor, "_ channels _ _"]],
        patch_size: int,
        *,
        frames_per_patch: int = 2,
        merge_size: int = 2,
    ) -> "VisualInput":
        """Cut images and videos [frames, channels, height, width] into patches. Raises as `cut_into_patches` does."""
        cut = [cut_into_patches(frames, patch_size, frames_per_patch, merge_size) for frames in items]
        return cls(torch.cat([patches for patches, _ in cut]), torch.tensor([grid for _, grid in cut]))


def cut_into_patches(
    frames: Float[Tensor, "frames channels height width_px"], patch_size: int, frames_per_patch: int, merge_size: int
) -> tuple[Float[Tensor, "patches values"], tuple[int, int, int]]:
    """Return the patches in merge order, and the numbers of steps in time, rows and columns.

    The last frame is repeated until the frames fill the last patch.
    Raises ValueError when a side is not a multiple of `patch_size · merge_size`.
    """
    height, width = frames.shape[-2:]
    side = patch_size * merge_size
    if height % side or width % side or not (height and width):
        raise ValueError(
            f"a frame of {height}×{width} pixels does not divide into tokens of {side}×{side} pixels; resize it first"
        )
    missing = -len(frames) % frames_per_patch
    frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    patches = rearrange(
        frames,
        "(t f) c (h mh p) (w mw q) -> (t h w mh mw) (c f p q)",
        f=frames_per_patch,
        p=patch_size,
        q=patch_size,
        mh=merge_size,
        mw=merge_size,
    )
    return patches, (len(frames) // frames_per_patch, height // patch_size, width // patch_size)


def patch_coordinates(grids: Int[Tensor, "items 3"], merge_size: int) -> Int[Tensor, "patches 2"]:
    """Return the row and the column of every patch, in merge order, for the 2-D rotary positions."""
    coordinates = []
    for frames, rows, columns in grids.tolist():
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        grid = torch.stack((row, column), dim=-1)
        blocks = rearrange(grid, "(h mh) (w mw) axes -> (h w mh mw) axes", mh=merge_size, mw=merge_size)
        coordinates.append(blocks.repeat(frames, 1))
    return torch.cat(coordinates).to(grids.device)


def frame_index(grids: Int[Tensor, "items 3"]) -> Int[Tensor, "patches"]:
    """Return the number of each patch's frame, counted over all items: attention stays within a frame."""
    patches = (grids[:, 1] * grids[:, 2]).repeat_interleave(grids[:, 0])
    return torch.arange(len(patches), device=grids.device).repeat_interleave(patches)
