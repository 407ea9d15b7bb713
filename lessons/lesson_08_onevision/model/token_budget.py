"""Token budgets: which tiles, which frames and which pooling fit into a context (arXiv:2408.03326, section 3.2).

An image of a × b tiles of T patches, and the whole image as one more tile, takes L = (a · b + 1) · T tokens. Above a
threshold τ the paper pools every tile to τ / (a · b + 1) tokens. So the resolution of the pixels stays, and only the
tokens become fewer. The published budgets are of like size for the three types of input:

    single image      729 · (9 + 1) = 7,290    up to 6 × 6 tiles, pooled to 9
    several images    729 · 12      = 8,748    one tile per image, 12 images
    video             196 · 32      = 6,272    14 × 14 features per frame, 32 frames

The solver of this file answers the same question for any context length. It counts exactly: patches of the padding are
removed, and each row, each of several images and each video ends with a newline token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from lessons.lesson_05_llava.model.anyres import select_resolution
from lessons.lesson_08_onevision.model.pooling import Size
from lessons.lesson_08_onevision.model.tiling import VisualLayout

PAPER_BUDGETS = {"image": 729 * 10, "images": 729 * 12, "video": 196 * 32}
"""Most visual tokens of a training example by its type of input."""


class ImagePlan(NamedTuple):
    """How one image is encoded.

    pinpoint  (height, width) in pixels that its tiles cover; None for an image that is one tile
    side      features along one side of a tile after pooling
    tokens    number of tokens, newlines included
    """

    pinpoint: Size | None
    side: int
    tokens: int


class VideoPlan(NamedTuple):
    """How a video is encoded: `frames` of its frames, each pooled to side × side features, in `tokens` tokens."""

    frames: int
    side: int
    tokens: int


class ImageInput(NamedTuple):
    """An image in a sequence: its (height, width) in pixels."""

    size: Size


class VideoInput(NamedTuple):
    """A video in a sequence: its number of frames."""

    frames: int


VisualInput = ImageInput | VideoInput
Plan = ImagePlan | VideoPlan


@dataclass(frozen=True)
class Context:
    """The tokens that a sequence may have, of which `text` are reserved for prompts and answers.

    Raises ValueError when no visual token is left.
    """

    length: int
    text: int = 0

    def __post_init__(self) -> None:
        if self.text < 0 or self.length <= self.text:
            raise ValueError(
                f"a context of {self.length} tokens with {self.text} tokens of text has none left for images; "
                "use a longer context or a shorter text"
            )

    @property
    def budget(self) -> int:
        """Number of visual tokens."""
        return self.length - self.text


# ── One image ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def solve_image(image: Size, budget: int, layout: VisualLayout, *, least_side: int | None = None) -> ImagePlan:
    """Return the tiles and the pooling of a single image of at most `budget` tokens.

    The grid that keeps the most pixels is chosen first, and its tiles are pooled as little as the budget allows: more
    pixels help more than more tokens (section 3.2). When its tiles would be smaller than `least_side`
    (half of a tile's patches by default), the next best grid follows. Where no grid fits, the image is one tile.

    Raises ValueError for an image without area, and for a budget that is too small for any tile.
    """
    least = layout.video_side if least_side is None else least_side
    _check_least_side(least, layout.side)
    pinpoints = list(layout.pinpoints)
    while pinpoints:
        pinpoint = select_resolution(image, pinpoints)
        counts = {side: tiled_tokens(image, pinpoint, side, layout) for side in range(least, layout.side + 1)}
        side = max((side for side, tokens in counts.items() if tokens <= budget), default=0)
        if side:
            return ImagePlan(pinpoint, side, counts[side])
        pinpoints.remove(pinpoint)
    return solve_images(1, budget, layout)


def tiled_tokens(image: Size, pinpoint: Size, side: int, layout: VisualLayout) -> int:
    """Return the number of tokens of an image whose tiles cover `pinpoint` and are pooled to side × side features."""
    rows, columns = replace(layout, side=side, pinpoints=(pinpoint,)).visible_patches(image)
    return side**2 + rows * (columns + 1)


def _check_least_side(least: int, greatest: int) -> None:
    if not 1 <= least <= greatest:
        raise ValueError(f"least_side is {least}; expected from 1 to {greatest} features")


# ── Several images ────────────────────────────────────────────────────────────────────────────────────────────────────


def solve_images(count: int, budget: int, layout: VisualLayout) -> ImagePlan:
    """Return the plan of each of `count` images that share `budget` tokens: one tile, pooled where it must be.

    Raises ValueError for a number of images below 1, and for a budget below two tokens per image.
    """
    if count < 1:
        raise ValueError(f"{count} images; expected at least one")
    side = min(layout.side, math.isqrt(max(0, budget // count - 1)))
    if side < 1:
        raise ValueError(
            f"a budget of {budget} tokens is smaller than {count} {'tile' if count == 1 else 'tiles'} of one feature "
            f"and a newline; expected at least {2 * count} tokens"
        )
    return ImagePlan(None, side, side**2 + 1)


# ── Videos ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def solve_video(frames: int, budget: int, layout: VisualLayout, *, least_side: int | None = None) -> VideoPlan:
    """Return the frames and the pooling of a video of at most `budget` tokens.

    All frames are taken, pooled as little as the budget allows and at least to half of a tile's patches. When they
    would be pooled below `least_side` (half of that by default), fewer frames are taken.

    Raises ValueError for a video without frames, and for a budget that is too small for one frame.
    """
    least = (layout.video_side + 1) // 2 if least_side is None else least_side
    if frames < 1:
        raise ValueError(f"a video of {frames} frames; expected at least one")
    _check_least_side(least, layout.video_side)
    if budget < least**2 + 1:
        raise ValueError(
            f"a budget of {budget} tokens is smaller than one frame of {least} × {least} features and a newline; "
            f"expected at least {least**2 + 1} tokens"
        )
    count, side = video_plans(torch.tensor([frames]), budget, (least, layout.video_side))[0].tolist()
    return VideoPlan(count, side, layout.video_tokens(count, side))


def video_plans(
    frames: Int[Tensor, "videos"], budget: int, sides: tuple[int, int]
) -> Int[Tensor, "videos frames_and_side"]:
    """Return for each video the number of frames and the side of a pooled frame within `budget` tokens.

    The largest side whose frames and one newline fit is chosen. If even the least side does not fit all frames, as many
    frames are taken as fit with it.

    frames  number of frames per video
    sides   least and greatest side
    """
    # exercise 8.6: frames and pooling within a budget
    least, greatest = sides
    largest = ((budget - 1) // frames).double().sqrt().floor().long().clamp(least, greatest)
    return torch.stack([frames.clamp(max=(budget - 1) // least**2), largest], dim=1)
    # end exercise


def frame_indices(frames: int, count: int) -> list[int]:
    """Return `count` indices of `frames` frames at equal distances, from the first to the last; the middle one for 1.

    Raises ValueError when more frames are requested than there are, or none.
    """
    if not 1 <= count <= frames:
        raise ValueError(f"{count} of {frames} frames; expected from 1 to all of them")
    if count == 1:
        return [(frames - 1) // 2]
    return [index * (frames - 1) // (count - 1) for index in range(count)]


# ── A sequence of images and videos ───────────────────────────────────────────────────────────────────────────────────


def is_tiled(visuals: Sequence[VisualInput]) -> bool:
    """Return whether the images of a sequence are cut into tiles: only an image without another image is."""
    return sum(isinstance(visual, ImageInput) for visual in visuals) == 1


def published_token_counts(visuals: Sequence[VisualInput], layout: VisualLayout) -> list[int]:
    """Return the number of tokens of each image and video of one sequence in the published models.

    Raises ValueError for an image without area and for a video without frames.
    """
    tiled = is_tiled(visuals)
    return [
        layout.video_tokens(visual.frames)
        if isinstance(visual, VideoInput)
        else layout.image_tokens(visual.size, tiled=tiled)
        for visual in visuals
    ]


def solve_sequence(visuals: Sequence[VisualInput], context: Context, layout: VisualLayout) -> list[Plan]:
    """Return a plan for every image and video of one sequence, which together fit into the context.

    One image has tiles; of several images each is one tile. The context is divided in proportion to the tokens that the
    published model would use, so that no input pays for the size of another.

    Raises ValueError as `solve_image` and `solve_video` do.
    """
    weights, tiled = published_token_counts(visuals, layout), is_tiled(visuals)
    plans: list[Plan] = []
    for visual, weight in zip(visuals, weights, strict=True):
        budget = context.budget * weight // sum(weights)
        if isinstance(visual, VideoInput):
            plans.append(solve_video(visual.frames, budget, layout))
        else:
            plans.append(solve_image(visual.size, budget, layout) if tiled else solve_images(1, budget, layout))
    return plans
