"""One sequence builder for a single image, several images and videos (arXiv:2408.03326, section 3.2 and figure 3).

    single image      I…I  (I…I n)(I…I n)…    the whole image, then the rows of its tiles, each with a newline
    several images    I…I n  text  I…I n      one tile per image, with one newline at its end
    video             V…V V…V … V…V n         pooled frame after pooled frame, with one newline at the end

In the text, every image and every video is one placeholder. It is repeated as often as its input has tokens, and the
model puts the visual embeddings at these positions in reading order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from lessons.lesson_05_llava.model import encode_conversation
from lessons.lesson_08_onevision.model.tiling import VisualLayout
from lessons.lesson_08_onevision.model.token_budget import (
    ImageInput,
    Plan,
    VideoInput,
    VisualInput,
    published_token_counts,
)
from shared.tokenizers import ChatTemplate, EncodedConversation


class PlaceholderIds(NamedTuple):
    """The token ids of an image position and of a video position; the authors' own code has one for both."""

    image: int
    video: int


class OneVisionSequence(NamedTuple):
    """The token ids of one example, and its images and videos in reading order."""

    token_ids: Int[Tensor, "tokens"]
    visuals: tuple[VisualInput, ...]


def visual_token_counts(
    visuals: Sequence[VisualInput], layout: VisualLayout, plans: Sequence[Plan] | None = None
) -> list[int]:
    """Return the number of tokens of each image and video of one sequence.

    plans  one per input, as the solver returns them; without, the counts of the published model

    Raises ValueError for an image without area and for a video without frames.
    """
    if plans is not None:
        if len(plans) != len(visuals):
            raise ValueError(f"{len(plans)} plans for {len(visuals)} images and videos; expected one per input")
        return [plan.tokens for plan in plans]
    return published_token_counts(visuals, layout)


def expand_placeholders(
    token_ids: Int[Tensor, "text"], counts: Sequence[int], placeholders: Sequence[int]
) -> Int[Tensor, "tokens"]:
    """Repeat each placeholder as often as its image or video has tokens; all other token ids occur once.

    counts        number of tokens per placeholder, in reading order
    placeholders  the token ids that stand for an image or a video

    Raises ValueError when the numbers of placeholders and counts differ.
    """
    is_visual = torch.isin(token_ids, torch.tensor(placeholders))
    if int(is_visual.sum()) != len(counts):
        raise ValueError(
            f"the text has {int(is_visual.sum())} placeholders for {len(counts)} images and videos; expected one each"
        )
    # exercise 8.7: expand the placeholders
    repeats = torch.ones_like(token_ids)
    repeats[is_visual] = torch.tensor(counts, dtype=token_ids.dtype)
    return token_ids.repeat_interleave(repeats)
    # end exercise


def build_sequence(
    parts: Sequence[Sequence[int] | VisualInput],
    layout: VisualLayout,
    placeholders: PlaceholderIds,
    plans: Sequence[Plan] | None = None,
) -> OneVisionSequence:
    """Build one sequence of text, images and videos in any order.

    parts  token ids of text, an `ImageInput` or a `VideoInput`, in reading order
    plans  one per image and video, as the solver returns them; without, the published rules hold

    Raises ValueError as `visual_token_counts` does, and for text that contains a placeholder itself.
    """
    visuals = tuple(part for part in parts if isinstance(part, ImageInput | VideoInput))
    text: list[int] = []
    for part in parts:
        if isinstance(part, ImageInput):
            text.append(placeholders.image)
        elif isinstance(part, VideoInput):
            text.append(placeholders.video)
        else:
            text += part
    counts = visual_token_counts(visuals, layout, plans)
    token_ids = expand_placeholders(torch.tensor(text, dtype=torch.long), counts, placeholders)
    return OneVisionSequence(token_ids, visuals)


def encode_visual_conversation(
    template: ChatTemplate,
    question: str,
    answer: str | None = None,
    *,
    visuals: Sequence[VisualInput],
    layout: VisualLayout,
    plans: Sequence[Plan] | None = None,
) -> EncodedConversation:
    """Encode a question about images and videos with its answer; without an answer, the row ends with a header.

    The placeholder of both is the template's `<image>`, once per video, as in the authors' own code.
    Raises ValueError as `visual_token_counts` does.
    """
    counts = visual_token_counts(visuals, layout, plans)
    return encode_conversation(template, question, answer, image_token_counts=counts)
