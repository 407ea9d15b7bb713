"""V2PE: variable visual position encoding (arXiv:2412.09616; arXiv:2504.10479, section 2.1).

A text token moves the position on by 1, a visual token only by δ: p₁ = 0 and pᵢ = pᵢ₋₁ + (1 or δ). An image of 256
tokens with δ = 1/16 takes as much of the position range as 16 words, so that long multimodal sequences stay within the
positions that the language model was trained on. δ is one value for all tokens of an image; in training it is drawn
anew for each image from {1, 1/2, 1/4, …, 1/256}, and at inference it may be chosen by the length of the sequence.

All steps are powers of two, so that sums of them are exact in floating point. The authors' code continues after an
image at a whole number, rounded up; the paper's rule, used here, gives the same for an uncompressed tile.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STEPS = tuple(2.0**-exponent for exponent in range(9))
"""The values of δ that training draws from, largest first."""


def token_steps(
    is_visual: Bool[Tensor, "batch tokens"], image_steps: Float[Tensor, "images"]
) -> Float[Tensor, "batch tokens"]:
    """Return the position increment of each token: 1 for text, and for a visual token its image's δ.

    An image is a run of visual tokens; text (such as its end token) separates it from the next one. Images are in
    reading order over the rows of the batch; a row that begins with a visual token begins a new image. The result has
    the dtype of `image_steps` and passes gradients to it. Raises ValueError unless there is one step per image.

    The code above the exercise computes `begins` [batch, tokens]: which tokens are the first of an image.
    """
    begins = is_visual.clone()
    begins[:, 1:] &= ~is_visual[:, :-1]
    if int(begins.sum()) != len(image_steps):
        raise ValueError(f"the text has {int(begins.sum())} images for {len(image_steps)} steps; expected one each")
    # exercise 10.2: a step for each token
    image = begins.flatten().cumsum(0).view_as(begins) - 1
    steps = image_steps.new_ones(is_visual.shape)
    steps[is_visual] = image_steps[image[is_visual]]
    return steps
    # end exercise


def v2pe_positions(steps: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
    """Return the position of each token: the first token has 0, and each later one adds its own step.

    The first token of each row has 0 also if it is visual, whatever its step is.
    """
    # exercise 10.3: positions from steps
    return steps.cumsum(dim=1) - steps[:, :1]
    # end exercise


def draw_steps(
    images: int, generator: torch.Generator | None = None, steps: Sequence[float] = STEPS
) -> Float[Tensor, "images"]:
    """Draw δ for each of some images, each value with equal probability, as in training."""
    return torch.tensor(steps)[torch.randint(len(steps), (images,), generator=generator)]


def largest_position(text_tokens: int, visual_tokens: int, step: float) -> float:
    """Return the last position of a sequence that begins with text and has one δ for all its images."""
    return text_tokens - 1 + step * visual_tokens


def choose_step(text_tokens: int, visual_tokens: int, positions: int, steps: Sequence[float] = STEPS) -> float:
    """Return the largest δ with which a sequence stays below `positions`, the smallest if none does."""
    fitting = [step for step in steps if largest_position(text_tokens, visual_tokens, step) < positions]
    return max(fitting, default=min(steps))


def chosen_steps(
    text_tokens: Sequence[int], visual_tokens: Sequence[int], positions: int
) -> Float[Tensor, "sequences"]:
    """Return `choose_step` of several sequences."""
    return torch.tensor([choose_step(*each, positions) for each in zip(text_tokens, visual_tokens, strict=True)])
