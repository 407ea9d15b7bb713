"""Pictures of the toy world with their captions, in batches in which no two captions are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from data.toybox.heldout import sample_scenes
from data.toybox.language import Description, caption, phrase
from data.toybox.scene import COLOURS, SHAPES, Scene, stream
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer

# What a caption tells: colours and shapes alone, or sizes, textures and places too.
LEVELS = ("colours", "places")
CLASSES = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
PURPOSE = 200  # of this lesson's own random numbers


def captions_of(scenes: Sequence[Scene], level: str) -> list[str]:
    """What is said of each scene at a level of detail, with varying openings."""
    return [caption(scene, level, stream(0, number, PURPOSE)) for number, scene in enumerate(scenes)]


@lru_cache(1)
def toy_tokenizer(context_length: int = 48) -> CLIPTokenizer:
    """OpenAI's tokenizer with a vocabulary of this world: each word that training captions use is one token."""
    scenes = sample_scenes("train", 0, 2_000, (1, 3))
    texts = [text for level in LEVELS for text in captions_of(scenes, level)]
    return CLIPTokenizer.train(texts, 400, context_length=context_length)


def tokens_of(texts: Sequence[str], length: int | None = None) -> Int[Tensor, "texts tokens"]:
    """Rows no longer than the longest caption needs, or of `length` tokens."""
    rows = toy_tokenizer()(texts)
    ends = (rows == toy_tokenizer().end).int().argmax(dim=1)
    return rows[:, : length or int(ends.max()) + 1]


@dataclass
class Pairs:
    """Scenes to train on. `pairs(number)` is a batch, a pure function of its number: pictures, and as many captions.

    A caption is of one of `LEVELS`, drawn anew each time. No two captions of a batch are alike: for either picture the
    other's caption would be true, and the loss would punish what is right (a *false negative*).

    pixels       every scene's picture
    tokens       a row for each distinct caption
    caption_of   [scenes, levels] the number of the row that is the scene's caption
    """

    pixels: UInt8[Tensor, "scenes 3 size size"]
    tokens: Int[Tensor, "captions tokens"]
    caption_of: Int[Tensor, "scenes levels"]
    batch_size: int
    seed: int
    detailed: float
    """The share of captions that tell everything."""

    @classmethod
    def of(cls, scenes: Sequence[Scene], *, batch_size: int, seed: int, detailed: float = 0.5) -> "Pairs":
        said = [captions_of(scenes, level) for level in LEVELS]
        number = {text: row for row, text in enumerate(dict.fromkeys(text for level in said for text in level))}
        caption_of = torch.tensor([[number[text] for text in level] for level in said]).T
        return cls(render_tensors(scenes), tokens_of(list(number)), caption_of, batch_size, seed, detailed)

    def __call__(self, number: int) -> tuple[Float[Tensor, "batch 3 size size"], Int[Tensor, "batch tokens"]]:
        generator = np.random.default_rng([self.seed, number])
        chosen: dict[int, int] = {}
        while len(chosen) < self.batch_size:
            scenes = generator.integers(len(self.pixels), size=self.batch_size)
            levels = (generator.random(self.batch_size) < self.detailed).astype(int)
            captions = self.caption_of.numpy()[scenes, levels]
            for scene, text in zip(scenes.tolist(), captions.tolist(), strict=True):
                if len(chosen) < self.batch_size:
                    chosen.setdefault(text, scene)
        rows = torch.tensor(list(chosen))
        tokens = self.tokens[rows]
        longest = int((tokens == toy_tokenizer().end).int().argmax(dim=1).max()) + 1
        return normalize_pixels(self.pixels[torch.tensor(list(chosen.values()))]), tokens[:, :longest]


def prompt(colour: str, shape: str) -> str:
    """ "a purple triangle" """
    return phrase(Description(colour=colour, shape=shape))
