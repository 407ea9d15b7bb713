"""Batches for the captioning loss: each image with its full caption and with descriptions of some of its patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.toybox.language import caption
from data.toybox.regions import BACKGROUND, patch_objects, region_text
from data.toybox.scene import Scene, pick, stream
from data.toybox.tensors import normalize_pixels
from lessons.lesson_02_clip.experiment.data import PATCHES, CaptionedScenes, toy_tokenizer

OBJECT_FRACTION = 0.85
"""Fraction of the described patches that show an object; the others are background."""
PATCH_STREAM = 201
"""Number of the random numbers that choose patches."""


class DescribedBatch(NamedTuple):
    """Hold images, the captions that are contrasted, and the texts that the decoder predicts.

    token_ids  caption of each image, for the contrastive loss
    text_ids   the decoder's texts, one after another: the full caption, then the patch descriptions
    segments   number of the text that a token belongs to; −1 is padding
    loss_mask  the tokens to predict: all but those of a patch's place
    """

    pixels: Float[Tensor, "batch 3 size size"]
    token_ids: Int[Tensor, "batch tokens"]
    text_ids: Int[Tensor, "batch text"]
    segments: Int[Tensor, "batch text"]
    loss_mask: Bool[Tensor, "batch text"]


class DecoderRow(NamedTuple):
    """Token ids, segments and loss mask of all texts about one image."""

    text_ids: list[int]
    segments: list[int]
    loss_mask: list[bool]


@dataclass
class DescribedScenes:
    """Scenes to train on with both losses. `batches(step)` returns a batch, a pure function of the step.

    captions  the same scenes with captions to contrast
    regions   number of patches that are described per image
    """

    scenes: Sequence[Scene]
    captions: CaptionedScenes
    regions: int

    def __call__(self, step: int) -> DescribedBatch:
        numbers, token_ids = self.captions.draw(step)
        rng = stream(self.captions.seed, step, PATCH_STREAM)
        rows = [decoder_row(self.scenes[number], self.regions, rng) for number in numbers.tolist()]
        text_ids, segments, loss_mask = (
            pad_sequence([torch.tensor(row[part]) for row in rows], batch_first=True, padding_value=padding)
            for part, padding in enumerate((0, -1, False))
        )
        pixels = normalize_pixels(self.captions.pixels[numbers])
        return DescribedBatch(pixels, token_ids, text_ids, segments, loss_mask)


def decoder_row(scene: Scene, regions: int, rng: Random) -> DecoderRow:
    """Return the full caption of a scene and descriptions of `regions` patches, drawn by `rng`, as one row."""
    text_ids = list(encode_text(caption(scene, "places")))
    segments, loss_mask = [0] * len(text_ids), [True] * len(text_ids)
    grid = patch_objects(scene, PATCHES)
    places = [(row, column) for row in range(PATCHES) for column in range(PATCHES)]
    objects = [(row, column) for row, column in places if grid[row][column] >= 0]
    background = [(row, column) for row, column in places if grid[row][column] == BACKGROUND]
    for segment in range(1, regions + 1):
        # Six large objects may leave no patch that is background only.
        chosen = objects if rng.random() < OBJECT_FRACTION or not background else background
        place, description = region_text(scene, grid, *pick(rng, chosen))
        place_ids, description_ids = encode_text(place)[:-1], encode_text(description)[1:]
        text_ids += [*place_ids, *description_ids]
        segments += [segment] * (len(place_ids) + len(description_ids))
        loss_mask += [False] * len(place_ids) + [True] * len(description_ids)
    return DecoderRow(text_ids, segments, loss_mask)


@lru_cache(100_000)
def encode_text(text: str) -> tuple[int, ...]:
    """Return a text's token ids from the start token to the end token."""
    tokenizer = toy_tokenizer()
    row = tokenizer([text])[0].tolist()
    return tuple(row[: row.index(tokenizer.end) + 1])
