"""Episodes of images: what is to be answered can only be known from the examples before it.

    <image> colour shape? circle.⏎ <image> size colour? small.⏎ <image> size texture shape? …

A rule that nobody states, drawn anew for each episode, is an order of the four kinds of attribute: of those asked for, the
one that comes first is answered. Lesson 0's decoder has played this game in words ("red circle? circle."), with other rules
than those that are held out. Here the thing is shown, and the words only say of what kind the answer may be: the language
model knows how to find a rule in examples, and has to learn, through what is inserted, to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.episodes import HELD_OUT_CHOOSING, SEEN_CHOOSING
from data.toybox.heldout import HELD_OUT
from data.toybox.scene import COLOURS, SHAPES, SIZES, TEXTURES, Scene, make_scene, pick, stream
from data.toybox.tensors import render_tensors
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import vision_features
from lessons.lesson_04_flamingo.model import Interleaved, few_shot, interleave
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

IMAGE = "<image>"
PURPOSE = 210  # of this lesson's own random numbers
WORDS = {"size": SIZES, "texture": TEXTURES, "colour": COLOURS, "shape": SHAPES}
KINDS = tuple(WORDS)
# Two kinds or three, as many of the one as of the other.
CHOICES = [*combinations(KINDS, 2)] * 2 + [*combinations(KINDS, 3)] * 3
# In training every third line asks for one kind alone, as the paper's mixture has pairs of an image and its text beside pages.
TRAINING_CHOICES = CHOICES + [(kind,) for kind in KINDS] * 3
Rule = tuple[str, ...]


class Line(NamedTuple):
    """One line of an episode: an image, by its number, the kinds that are asked for, and what the rule says to it."""

    image: int
    question: str
    answer: str


@dataclass(frozen=True)
class Gallery:
    """Scenes of one thing, and what the eye made of their pictures, each looked at once."""

    scenes: Sequence[Scene]
    features: Float[Tensor, "images tokens context"]

    @classmethod
    def of(cls, eye: VisionTransformer, seed: int, count: int, device: str) -> "Gallery":
        """Scenes of combinations that may be trained on."""
        scenes = [
            make_scene(seed, number, objects=(1, 1), forbidden=HELD_OUT, purpose=PURPOSE) for number in range(count)
        ]
        return cls(scenes, vision_features(eye, render_tensors(scenes), device).cpu())

    def seen(self, images: Int[Tensor, "rows most"]) -> Float[Tensor, "rows most tokens context"]:
        """The features of each row's images; a row with fewer repeats the first of all, which nothing there looks at."""
        return self.features[images.clamp(min=0)]


class Episodes(NamedTuple):
    """Rows of one episode each.

    answers  [rows][lines] which tokens of a row are each line's answer: [first, last)
    wanted   the same as yes and no for each token: what the loss asks for
    """

    rows: Interleaved
    answers: list[list[tuple[int, int]]]
    wanted: Bool[Tensor, "rows length"]


def rule_of(seed: int, number: int, *, held_out: bool) -> Rule:
    """A rule; with `held_out` one that the decoder has met neither in words nor in images."""
    rng = stream(seed, number, PURPOSE + 1)
    return pick(rng, sorted(HELD_OUT_CHOOSING)) if held_out else pick(rng, SEEN_CHOOSING)


def lines_of(
    gallery: Gallery,
    seed: int,
    number: int,
    count: int,
    *,
    held_out: bool = False,
    mixed: bool = False,
    choices: Sequence[Rule] = CHOICES,
) -> list[Line]:
    """The lines of episode `number`.

    mixed    every line but the last follows a rule of its own: the same sentences, and nothing to be learned from them
    choices  which kinds a line may ask for
    """
    rng = stream(seed, number, PURPOSE + 2)
    lines = []
    for place in range(count):
        alone = mixed and place < count - 1
        rule = rule_of(seed, (number + 1) * 1_000_000 + place if alone else number, held_out=held_out)
        image, asked = int(rng.random() * len(gallery.scenes)), pick(rng, choices)
        scene_object = gallery.scenes[image].objects[0]
        lines.append(Line(image, f" {' '.join(asked)}?", f" {getattr(scene_object, min(asked, key=rule.index))}.\n"))
    return lines


def laid_out(episodes: Sequence[Sequence[Line]], tokenizer: Tokenizer) -> Episodes:
    """Episodes as rows of tokens. Raises ValueError for an episode without a line."""
    documents, answers = [], []
    for lines in episodes:
        if not lines:
            raise ValueError("an episode of no lines; the last one is the question, so there must be one or more")
        examples = [(line.image, line.question + line.answer) for line in lines[:-1]]
        documents.append([*few_shot(examples, lines[-1].image), lines[-1].question + lines[-1].answer])
        at, places = 1, []
        for line in lines:
            first = at + 1 + len(tokenizer.encode(line.question))
            at += 1 + len(tokenizer.encode(line.question + line.answer))
            places.append((first, at))
        answers.append(places)
    rows = interleave(documents, tokenizer, begin=BEGIN_TOKEN, image=IMAGE)
    wanted = torch.zeros_like(rows.tokens, dtype=torch.bool)
    for row, places in enumerate(answers):
        for first, last in places:
            wanted[row, first:last] = True
    return Episodes(rows, answers, wanted)
