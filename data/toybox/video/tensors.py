"""Toy-world clips as PyTorch tensors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data.toybox.tensors import IMAGE_SIZE
from data.toybox.video.arrays import render_frames
from data.toybox.video.clip import Clip, Seconds


def render_clip_tensors(
    clips: Sequence[Clip], times: Sequence[Sequence[Seconds]], size: int = IMAGE_SIZE
) -> UInt8[Tensor, "clips frames 3 size size"]:
    """Render each clip at its own times in seconds as uint8 RGB frames, channels first.

    Raises ValueError when the clips have different numbers of times, or as `render_frames` does.
    """
    counts = {len(row) for row in times}
    if len(clips) != len(times) or len(counts) > 1:
        raise ValueError(
            f"{len(clips)} clips and times for {[len(row) for row in times]} frames: expected equal numbers"
        )
    frames = [
        torch.from_numpy(render_frames(clip, row, size)).permute(0, 3, 1, 2)
        for clip, row in zip(clips, times, strict=True)
    ]
    return torch.stack(frames).contiguous() if frames else torch.empty(0, 0, 3, size, size, dtype=torch.uint8)


def normalize_frames(frames: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """Scale byte pixels to about zero mean, x / 64 − 3.25, as `data.toybox.tensors` does for images."""
    return frames.float() / 64 - 3.25
