"""Episodes of images: what is to be said of each can only be known from the examples before it.

Lesson 0's decoder has read such episodes in words ("small striped red circle: circle red."): a rule that nobody states, drawn
anew for each episode, says which attributes are named, and in which order. Here the thing is shown and not described. So the
language model knows how to find a rule in examples, and has to learn, through what is inserted, to read the examples off images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.heldout import HELD_OUT
from data.toybox.scene import Scene, make_scene, pick, stream
from lessons.lesson_00_foundations.decoder.arms import BEGIN
from lessons.lesson_00_foundations.decoder.text import HELD_OUT_NAMING, SEEN_NAMING
from lessons.lesson_02_clip.arms.pairs import pixels_of
from lessons.lesson_02_clip.model import VisionTower
from lessons.lesson_03_blip2.arms.frozen import features_of
from lessons.lesson_04_flamingo.model import Interleaved, few_shot, interleave, words_of
from shared.tokenizers import Tokenizer

IMAGE = "<image>"
PURPOSE = 210  # of this lesson's own random numbers
Rule = tuple[str, ...]


@dataclass(frozen=True)
class Episodes:
    """Documents of `shots` examples and one more of the same rule, all images looked at once.

    answers  [episodes, lines] which tokens of a row are each line's answer: [first, last)
    """

    rows: Interleaved
    features: Float[Tensor, "images patches context"]
    answers: Sequence[Sequence[tuple[int, int]]]
    wanted: Bool[Tensor, "episodes length"]
    """The tokens of the answers: what the loss asks for."""

    def images(self, rows: Int[Tensor, "chosen"]) -> Float[Tensor, "chosen most patches context"]:
        """The features of some rows' images; a row with fewer repeats its first, which nothing looks at."""
        numbers = self.rows.images[rows]
        return self.features[numbers.clamp(min=0)]


def rule_of(seed: int, number: int, *, held_out: bool) -> Rule:
    """The rule of episode `number`; with `held_out` one that the decoder has met neither in words nor in images."""
    rng = stream(seed, number, PURPOSE)
    return pick(rng, sorted(HELD_OUT_NAMING)) if held_out else pick(rng, SEEN_NAMING)


def scene_of(seed: int, number: int) -> Scene:
    """A scene of one thing, of a combination that may be trained on."""
    return make_scene(seed, number, things=(1, 1), forbidden=HELD_OUT, purpose=PURPOSE + 1)


def answer_to(scene: Scene, rule: Rule) -> str:
    """What the rule says of a scene's one thing: "circle red"."""
    return " ".join(getattr(scene.things[0], attribute) for attribute in rule)


def episodes(
    eye: VisionTower, tokenizer: Tokenizer, seed: int, count: int, shots: int, *, held_out: bool, device: str
) -> Episodes:
    """`count` episodes of `shots` examples and a question each. Raises ValueError for fewer than 0 shots."""
    if shots < 0:
        raise ValueError(f"{shots} shots; an episode has 0 examples or more")
    lines = shots + 1
    scenes = [scene_of(seed, number) for number in range(count * lines)]
    documents = []
    for number in range(count):
        rule = rule_of(seed, number, held_out=held_out)
        shown = range(number * lines, (number + 1) * lines)
        said = [(scene, f": {answer_to(scenes[scene], rule)}.\n") for scene in shown]
        documents.append([*few_shot(said[:-1], said[-1][0]), said[-1][1]])
    rows = interleave(documents, tokenizer, begin=BEGIN, image=IMAGE)
    answers = [
        _answers(row, tokenizer.specials[IMAGE], segments)
        for row, segments in zip(rows.tokens, rows.segments, strict=True)
    ]
    wanted = torch.zeros_like(rows.tokens, dtype=torch.bool)
    for row, spans in enumerate(answers):
        for first, last in spans:
            wanted[row, first:last] = True
    wanted &= words_of(rows.tokens, rows.segments, tokenizer.specials[IMAGE])
    return Episodes(rows, features_of(eye, pixels_of(scenes), device).cpu(), answers, wanted)


def _answers(tokens: Int[Tensor, "length"], image_token: int, segments: Int[Tensor, "length"]) -> list[tuple[int, int]]:
    """Behind each image stands one token, the colon; from there to the next image, or to the end, is the answer."""
    places = (tokens == image_token).nonzero().flatten().tolist()
    end = int((segments >= 0).sum())
    return [(place + 2, after) for place, after in zip(places, [*places[1:], end], strict=True)]
