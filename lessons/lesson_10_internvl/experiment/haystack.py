"""Sequences of images, most of them empty, with questions about the few that show an object.

A longer sequence has more empty images and the same objects and questions, so that only its length makes it harder:

    <begin> image ⏎ image ⏎ … image ⏎ what is first? star⏎
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.heldout import HELD_OUT, SEEN_PAIRS, SPLITS
from data.toybox.scene import BACKGROUNDS, Scene, make_scene, pick, stream
from lessons.lesson_10_internvl.experiment.base_model import IMAGE_TOKENS, encode_scenes
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

PURPOSE = 230
"""The first purpose of `stream` for these sequences; each split has its own."""
OBJECTS = 2
"""Images with an object, per sequence."""
PADDING = 0
QUESTIONS = {"first": "what is first?", "last": "what is last?"}
"""The answer is the shape of the earlier or of the later object."""


class Needle(NamedTuple):
    """Two objects of different colors and shapes, and the places of their images in a sequence, in order."""

    scenes: tuple[Scene, Scene]
    places: tuple[int, int]


class Sequences(NamedTuple):
    """Sequences of equally many images, one per row, each with one question.

    index        row of the bank of features for each image
    token_ids    question and answer, padded at the end
    answer_mask  tokens of the answers
    types        type of each question
    """

    index: Int[Tensor, "rows images"]
    token_ids: Int[Tensor, "rows text"]
    answer_mask: Bool[Tensor, "rows text"]
    types: Sequence[str]


class Bank:
    """Features of all images that sequences are made of: each different one is encoded once."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = [Scene((), background) for background in range(BACKGROUNDS)]
        self._encoded: list[Tensor] = []

    def add(self, scene: Scene) -> int:
        """Add a scene and return its row."""
        self.scenes.append(scene)
        return len(self.scenes) - 1

    def features(self, device: str) -> Float[Tensor, "images side side width"]:
        """Return the features of all scenes, on the CPU."""
        missing = self.scenes[sum(map(len, self._encoded)) :]
        if missing:
            self._encoded.append(encode_scenes(missing, device))
        return torch.cat(self._encoded)


def needle(split: str, seed: int, number: int, images: int) -> Needle:
    """Return the objects of sequence `number` of a split, and their places among `images` images.

    Sequences of "train" and "validation" hold no held-out combination, and each of "test" holds one. Raises ValueError
    for fewer than two images.
    """
    if images < OBJECTS:
        raise ValueError(f"{images} image cannot show {OBJECTS} objects; expected at least {OBJECTS} images")
    rng = stream(seed, number, PURPOSE + SPLITS.index(split))
    pairs = sorted(HELD_OUT) if split == "test" else SEEN_PAIRS
    first = pick(rng, pairs)
    second = pick(rng, [each for each in SEEN_PAIRS if each[0] != first[0] and each[1] != first[1]])
    if rng.random() < 0.5:
        first, second = second, first
    scenes = []
    for turn, (color, shape) in enumerate((first, second)):
        scene = make_scene(seed, OBJECTS * number + turn, objects=(1, 1), purpose=PURPOSE + SPLITS.index(split))
        scenes.append(scene._replace(objects=(scene.objects[0]._replace(color=color, shape=shape),)))
    places = sorted(range(images), key=lambda _: rng.random())[:OBJECTS]
    return Needle((scenes[0], scenes[1]), (min(places), max(places)))


def sequences(tokenizer: Tokenizer, bank: Bank, split: str, seed: int, numbers: range, images: int) -> Sequences:
    """Return sequences of `images` images, and add their images to the bank; both question types alternate."""
    index, rows, masks, types = [], [], [], []
    for number in numbers:
        pair = needle(split, seed, number, images)
        rng = stream(seed, number, PURPOSE + len(SPLITS) + SPLITS.index(split))
        row = [int(rng.random() * BACKGROUNDS) for _ in range(images)]
        for scene, place in zip(pair.scenes, pair.places, strict=True):
            row[place] = bank.add(scene)
        index.append(row)
        types.append(list(QUESTIONS)[number % len(QUESTIONS)])
        answer = pair.scenes[0 if types[-1] == "first" else 1].objects[0].shape
        prompt, reply = tokenizer.encode(QUESTIONS[types[-1]]), tokenizer.encode(f" {answer}\n")
        rows.append(prompt + reply)
        masks.append([False] * len(prompt) + [True] * len(reply))
    longest = max(map(len, rows))
    return Sequences(
        torch.tensor(index),
        torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows]),
        torch.tensor([mask + [False] * (longest - len(mask)) for mask in masks]),
        types,
    )


def with_images(
    text: Int[Tensor, "rows text"], images: int, tokenizer: Tokenizer, image_token_id: int
) -> Int[Tensor, "rows tokens"]:
    """Return token ids of a begin token, the images, each with a newline after it, and the text."""
    newline = tokenizer.encode("\n")
    image = [image_token_id] * IMAGE_TOKENS + newline
    before = [tokenizer.special_tokens[BEGIN_TOKEN], *image * images]
    return torch.cat([torch.tensor(before).expand(len(text), -1), text], dim=1)
