"""Which frames of a video a model receives, at which size, and their times (arXiv:2502.13923, section 2.1.2).

Frames are sampled at a fixed rate per second of video, so that longer videos have more frames, within limits. The rules
are those of the published preprocessing (`qwen-vl-utils`, and the video processors in `transformers`).
"""

from collections.abc import Sequence
from math import ceil, floor, sqrt

import torch
from jaxtyping import Int
from torch import Tensor

LARGEST_RATIO = 200
"""The largest ratio of the sides of an image."""


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the size to which an image is resized: multiples of `factor`, within limits of the number of pixels.

    The aspect ratio changes by rounding only. A token covers `factor`² pixels, so the limits are a token budget.

    Raises ValueError for an image without pixels, a ratio of the sides above 200, and limits that exclude each other.
    """
    if min(height, width, factor) < 1 or max(height, width) > LARGEST_RATIO * min(height, width):
        raise ValueError(
            f"an image of {height}×{width} pixels and tokens of {factor}; expected at least 1 each, and sides in a "
            f"ratio of at most {LARGEST_RATIO}"
        )
    if not 0 < min_pixels <= max_pixels:
        raise ValueError(f"at least {min_pixels} and at most {max_pixels} pixels; expected limits in this order")
    return _resize_within(height, width, factor, (min_pixels, max_pixels))


def _resize_within(
    height: int, width: int, factor: int, limits: tuple[int, int], frames: int = 1, counted_frames: int = 1
) -> tuple[int, int]:
    """Return a size; `counted_frames`, of whole patches, count against the limits, and `frames` decide on the scale."""
    # exercise 9.1: a size within a token budget
    rows, columns = round(height / factor), round(width / factor)
    pixels = counted_frames * rows * columns * factor * factor
    if pixels > limits[1]:
        scale = sqrt(frames * height * width / limits[1])
        rows = max(1, floor(height / scale / factor))
        columns = max(1, floor(width / scale / factor))
    elif pixels < limits[0]:
        scale = sqrt(limits[0] / (frames * height * width))
        rows, columns = ceil(height * scale / factor), ceil(width * scale / factor)
    return rows * factor, columns * factor
    # end exercise


def resized_sizes(
    sizes: Int[Tensor, "items 2"], factor: int, min_pixels: int, max_pixels: int, frames: int | None = None
) -> Int[Tensor, "items 2"]:
    """Return the resized heights and widths of many images, or of videos of as many `frames` in Qwen3-VL.

    Raises as `smart_resize` and `smart_resize_video` do.
    """
    limits = (min_pixels, max_pixels)
    resized = [
        smart_resize(height, width, factor, *limits)
        if frames is None
        else smart_resize_video(frames, height, width, factor, limits)
        for height, width in sizes.tolist()
    ]
    return torch.tensor(resized, dtype=torch.long).reshape(-1, 2)


def pixels_per_frame(frames: int, total_pixels: int, frames_per_patch: int, limits: tuple[int, int]) -> int:
    """Return the largest number of pixels per frame of a video: an even part of the video's budget, within limits.

    total_pixels  budget of a video in pixels of its steps, each of `frames_per_patch` frames
    limits        least and largest number of pixels of a frame

    A floor of 1.05 times the least number lets the shorter side be rounded up.
    """
    return int(max(min(limits[1], total_pixels * frames_per_patch // frames), int(limits[0] * 1.05)))


def smart_nframes(
    total_frames: int,
    video_fps: float,
    *,
    fps: float = 2.0,
    min_frames: int = 4,
    max_frames: int = 768,
    frames_per_patch: int = 2,
) -> int:
    """Return how many of a video's frames are sampled at about `fps` frames per second.

    It is a multiple of `frames_per_patch` from `min_frames` to `max_frames`, and no more than the video has.

    Raises ValueError for a rate that is not above 0 and a video that does not fill one patch.
    """
    if not (video_fps > 0 and fps > 0):
        raise ValueError(f"the video has {video_fps} frames per second, sampled at {fps}; expected numbers above 0")
    if total_frames < frames_per_patch:
        raise ValueError(
            f"a video of {total_frames} frames does not fill a patch of {frames_per_patch} frames; repeat its last one"
        )
    # exercise 9.2: dynamic frames per second
    multiple = frames_per_patch
    least = ceil(min_frames / multiple) * multiple
    most = floor(min(max_frames, total_frames) / multiple) * multiple
    frames = min(max(total_frames / video_fps * fps, least), most)
    return floor(frames / multiple) * multiple
    # end exercise


def frame_indices(total_frames: int, frames: int) -> Int[Tensor, "frames"]:
    """Return the numbers of the sampled frames: evenly spaced, the first and the last one included.

    Raises ValueError unless the video has as many frames.
    """
    if not 1 <= frames <= total_frames:
        raise ValueError(f"{frames} frames of a video of {total_frames}; expected 1 to {total_frames}")
    return torch.linspace(0, total_frames - 1, frames, dtype=torch.float64).round().long()


def sampled_indices(
    total_frames: int, video_fps: float, fps: float, min_frames: int, max_frames: int
) -> Int[Tensor, "frames"]:
    """Return the numbers of the frames sampled at about `fps` frames per second. Raises as `smart_nframes` does."""
    frames = smart_nframes(total_frames, video_fps, fps=fps, min_frames=min_frames, max_frames=max_frames)
    return frame_indices(total_frames, frames)


def seconds_per_step(total_frames: int, frames: int, video_fps: float, frames_per_patch: int = 2) -> float:
    """Return the seconds between two steps of patches, which Qwen2.5-VL multiplies by its time ids per second."""
    return frames_per_patch * total_frames / (frames * video_fps)


def timestamps(indices: Sequence[int], video_fps: float, frames_per_patch: int = 2) -> list[float]:
    """Return the time in seconds of each step of a video: the middle of its first and its last frame (Qwen3-VL)."""
    padded = [*indices, *[indices[-1]] * (-len(indices) % frames_per_patch)]
    steps = [padded[start : start + frames_per_patch] for start in range(0, len(padded), frames_per_patch)]
    return [(step[0] / video_fps + step[-1] / video_fps) / 2 for step in steps]


def timestamp_text(seconds: float) -> str:
    """Return the text that Qwen3-VL reads before a frame."""
    return f"<{seconds:.1f} seconds>"


def smart_resize_video(
    frames: int, height: int, width: int, factor: int, limits: tuple[int, int], frames_per_patch: int = 2
) -> tuple[int, int]:
    """Return the size of a video's frames in Qwen3-VL, whose limits count the pixels of all frames together.

    Raises ValueError for too few frames, and as `smart_resize` does.
    """
    if frames < frames_per_patch:
        raise ValueError(f"{frames} frames do not fill a patch of {frames_per_patch} frames; repeat the last one")
    if min(height, width) < 1:
        raise ValueError(f"frames of {height}×{width} pixels; expected at least 1 each")
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) > LARGEST_RATIO * min(height, width):
        raise ValueError(f"frames of {height}×{width} pixels; expected sides in a ratio of at most {LARGEST_RATIO}")
    counted_frames = round(frames / frames_per_patch) * frames_per_patch
    return _resize_within(height, width, factor, limits, frames, counted_frames)
