"""Images of the toy world with captions: training batches without duplicate captions, and evaluation sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.language import Description, caption, phrase
from data.toybox.regions import BACKGROUND_TEXT, patch_place
from data.toybox.scene import COLORS, PLACES, SHAPES, SIZES, TEXTURES, Scene, stream
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from shared.training.batches import fit_batch_size

# Captions contain colors and shapes only, or sizes, textures and places too.
LEVELS = ("colors", "places")
CLASSES = tuple((color, shape) for color in COLORS for shape in SHAPES)
# One detailed description of a class, such as "a purple triangle", for each size, texture and place.
DETAILS = tuple((size, texture, place) for size in SIZES for texture in TEXTURES for place in PLACES)
CAPTION_STREAM = 200  # number of this lesson's stream of random numbers
EVALUATION_SCENES = 512
CURVE_SEED = 900
"""Seed of the scenes behind learning curves: none of them is a scene that claims are measured on."""
PATCHES = 8
"""Patches per side of an image: 8 × 8 patches of 4 × 4 pixels."""
PATCH_PLACES = tuple(patch_place(row, column) for row in range(PATCHES) for column in range(PATCHES))


# ── Captions and token ids ────────────────────────────────────────────────────────────────────────────────────────────


def generate_captions(scenes: Sequence[Scene], level: str) -> list[str]:
    """Return one caption per scene at a level of detail, with varying openings."""
    return [caption(scene, level, stream(0, index, CAPTION_STREAM)) for index, scene in enumerate(scenes)]


def class_prompt(color: str, shape: str) -> str:
    """Return the short prompt of a class, such as "a purple triangle"."""
    return phrase(Description(color=color, shape=shape))


@lru_cache(1)
def toy_tokenizer(context_length: int = 64) -> CLIPTokenizer:
    """Train OpenAI's tokenizer on texts of the toy world, so that each of their words is one token."""
    scenes = sample_scenes("train", 0, 2_000, (1, 5))
    texts = [text for level in LEVELS for text in generate_captions(scenes, level)]
    texts += [f"{place} {BACKGROUND_TEXT}" for place in PATCH_PLACES] * 20
    return CLIPTokenizer.train(texts, 400, context_length=context_length)


def tokenize(texts: Sequence[str], length: int | None = None) -> Int[Tensor, "texts tokens"]:
    """Return rows of token ids, cut to `length` tokens or to the longest caption."""
    rows = toy_tokenizer()(texts)
    ends = (rows == toy_tokenizer().end).int().argmax(dim=1)
    return rows[:, : length or int(ends.max()) + 1]


@lru_cache(1)
def class_prompts() -> Int[Tensor, "classes tokens"]:
    """Return the token ids of the short prompt of each of the 64 classes."""
    return tokenize([class_prompt(*pair) for pair in CLASSES])


@lru_cache(1)
def detailed_prompts() -> Int[Tensor, "prompts tokens"]:
    """Return the token ids of each class with each of `DETAILS`, class by class."""
    return tokenize(
        [
            phrase(Description(size, texture, color, shape, place))
            for color, shape in CLASSES
            for size, texture, place in DETAILS
        ]
    )


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class CaptionedScenes:
    """Scenes to train on. `scenes(step)` returns a batch of images and captions, a pure function of the step.

    The level of a caption is drawn anew for each batch. No two captions of a batch are equal: each would describe the
    other's image too, and the loss would penalize a correct match (a *false negative*).

    pixels            image of every scene
    token_ids         one row per distinct caption
    caption_index     [scenes, levels], the row of `token_ids` that holds the scene's caption
    detail_fraction   fraction of captions at the detailed level
    """

    pixels: UInt8[Tensor, "scenes 3 size size"]
    token_ids: Int[Tensor, "captions tokens"]
    caption_index: Int[Tensor, "scenes levels"]
    batch_size: int
    seed: int
    detail_fraction: float

    def __post_init__(self) -> None:
        """Make the batches smaller when there are fewer different captions."""
        levels = [
            level for level, is_used in enumerate((self.detail_fraction < 1, self.detail_fraction > 0)) if is_used
        ]
        self.batch_size = fit_batch_size(self.batch_size, len(self.caption_index[:, levels].unique()))

    @classmethod
    def from_scenes(
        cls, scenes: Sequence[Scene], *, batch_size: int, seed: int, detail_fraction: float = 0.5
    ) -> "CaptionedScenes":
        """Render scenes and generate their captions."""
        captions = [generate_captions(scenes, level) for level in LEVELS]
        rows = {text: row for row, text in enumerate(dict.fromkeys(text for level in captions for text in level))}
        caption_index = torch.tensor([[rows[text] for text in level] for level in captions]).T
        return cls(render_tensors(scenes), tokenize(list(rows)), caption_index, batch_size, seed, detail_fraction)

    def __call__(self, step: int) -> tuple[Float[Tensor, "batch 3 size size"], Int[Tensor, "batch tokens"]]:
        scenes, token_ids = self.draw(step)
        return normalize_pixels(self.pixels[scenes]), token_ids

    def draw(self, step: int) -> tuple[Int[Tensor, "batch"], Int[Tensor, "batch tokens"]]:
        """Return the scenes of a step's batch and the token ids of their captions."""
        generator = np.random.default_rng([self.seed, step])
        scene_of_caption: dict[int, int] = {}
        while len(scene_of_caption) < self.batch_size:
            scenes = generator.integers(len(self.pixels), size=self.batch_size)
            levels = (generator.random(self.batch_size) < self.detail_fraction).astype(int)
            captions = self.caption_index.numpy()[scenes, levels]
            for scene, text in zip(scenes.tolist(), captions.tolist(), strict=True):
                if len(scene_of_caption) < self.batch_size:
                    scene_of_caption.setdefault(text, scene)
        token_ids = self.token_ids[torch.tensor(list(scene_of_caption))]
        length = int((token_ids == toy_tokenizer().end).int().argmax(dim=1).max()) + 1
        return torch.tensor(list(scene_of_caption.values())), token_ids[:, :length]


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


class EvaluationSet(NamedTuple):
    """Scenes of one split, encoded for the models.

    classes        [scenes, objects], the class of each object as an index into `CLASSES`; −1 where a scene has fewer
    token_ids      the distinct detailed captions
    caption_index  for each scene, the row of `token_ids` that holds its caption
    """

    pixels: Float[Tensor, "scenes 3 size size"]
    classes: Int[Tensor, "scenes objects"]
    token_ids: Int[Tensor, "captions tokens"]
    caption_index: Int[Tensor, "scenes"]


@lru_cache(8)
def evaluation_set(
    split: str, objects: tuple[int, int] = (1, 1), count: int = EVALUATION_SCENES, seed: int = TEST_SEED
) -> EvaluationSet:
    """Return scenes of a split; those of "test" have a color–shape combination that is in no training scene."""
    scenes = sample_scenes(split, seed, count, objects)
    classes = torch.full((count, objects[1]), -1)
    for row, scene in enumerate(scenes):
        for column, scene_object in enumerate(scene.objects):
            classes[row, column] = CLASSES.index((scene_object.color, scene_object.shape))
    # Without openings, which carry no information but would make two captions of one.
    captions = [
        text.removeprefix("an image of ").removeprefix("here we see ") for text in generate_captions(scenes, "places")
    ]
    rows = {text: row for row, text in enumerate(dict.fromkeys(captions))}
    caption_index = torch.tensor([rows[text] for text in captions])
    return EvaluationSet(normalize_pixels(render_tensors(scenes)), classes, tokenize(list(rows)), caption_index)
