"""Few-shot episodes of images, in which only the examples determine the answer to the last question.

    <image> color shape? circle.⏎ <image> size color? small.⏎ <image> size texture shape? …

An unstated rule, drawn per episode, is an order of the four attributes: the answer is the requested attribute that
comes first in it. Lesson 0's decoder was trained on this task in text ("red circle? circle."), without the held-out
rules. Here the object is shown as an image, and the text only names the requested attributes: the language model can
infer a rule from examples, and the inserted layers have to learn to extract the attributes from images.
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
from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES, Scene, make_scene, pick, stream
from data.toybox.tensors import render_tensors
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import vision_features
from lessons.lesson_04_flamingo.model import InterleavedBatch, few_shot_prompt, interleave
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

IMAGE_TOKEN = "<image>"
PURPOSE = 210  # of the random numbers of this lesson
ATTRIBUTE_VALUES = {"size": SIZES, "texture": TEXTURES, "color": COLORS, "shape": SHAPES}
ATTRIBUTES = tuple(ATTRIBUTE_VALUES)
# Sets of two and of three attributes are equally frequent.
QUESTIONS = [*combinations(ATTRIBUTES, 2)] * 2 + [*combinations(ATTRIBUTES, 3)] * 3
# In training every third line requests a single attribute, as the paper adds image–text pairs to its web pages.
TRAINING_QUESTIONS = QUESTIONS + [(attribute,) for attribute in ATTRIBUTES] * 3
Rule = tuple[str, ...]


class Line(NamedTuple):
    """One line of an episode: the index of its image, the requested attributes, and the answer by the rule."""

    image: int
    question: str
    answer: str


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes with one object each, and their image features."""

    scenes: Sequence[Scene]
    image_features: Float[Tensor, "images tokens context"]

    @classmethod
    def sample(cls, vision_encoder: VisionTransformer, seed: int, count: int, device: str) -> "EncodedScenes":
        """Encode `count` scenes without held-out combinations."""
        scenes = [
            make_scene(seed, number, objects=(1, 1), forbidden=HELD_OUT, purpose=PURPOSE) for number in range(count)
        ]
        return cls(scenes, vision_features(vision_encoder, render_tensors(scenes), device).cpu())

    def features_of(self, images: Int[Tensor, "rows most"]) -> Float[Tensor, "rows most tokens context"]:
        """Return the features of each row's images; −1 gives those of image 0, to which no token attends."""
        return self.image_features[images.clamp(min=0)]


class EpisodeBatch(NamedTuple):
    """Rows of one episode each.

    answer_spans  [rows][lines] position of each line's answer in its row: [first, last)
    loss_mask     the tokens of all answers
    """

    rows: InterleavedBatch
    answer_spans: list[list[tuple[int, int]]]
    loss_mask: Bool[Tensor, "rows length"]


def episode_rule(seed: int, number: int, *, held_out: bool) -> Rule:
    """Return the rule of an episode; held-out rules occur in no training, neither in text nor with images."""
    rng = stream(seed, number, PURPOSE + 1)
    return pick(rng, sorted(HELD_OUT_CHOOSING)) if held_out else pick(rng, SEEN_CHOOSING)


def episode_lines(
    encoded: EncodedScenes,
    seed: int,
    number: int,
    count: int,
    *,
    held_out: bool = False,
    mixed_rules: bool = False,
    questions: Sequence[Rule] = QUESTIONS,
) -> list[Line]:
    """Return the lines of episode `number`.

    mixed_rules  every line but the last follows its own rule: the same questions, with uninformative examples
    questions    the sets of attributes that a line may request
    """
    rng = stream(seed, number, PURPOSE + 2)
    lines = []
    for place in range(count):
        own_rule = mixed_rules and place < count - 1
        rule_number = (number + 1) * 1_000_000 + place if own_rule else number
        rule = episode_rule(seed, rule_number, held_out=held_out)
        image, attributes = int(rng.random() * len(encoded.scenes)), pick(rng, questions)
        answer = getattr(encoded.scenes[image].objects[0], min(attributes, key=rule.index))
        lines.append(Line(image, f" {' '.join(attributes)}?", f" {answer}.\n"))
    return lines


def tokenize_episodes(episodes: Sequence[Sequence[Line]], tokenizer: Tokenizer) -> EpisodeBatch:
    """Return episodes as rows of tokens. Raises ValueError for an episode without lines."""
    documents, answer_spans = [], []
    for lines in episodes:
        if not lines:
            raise ValueError("an episode has no lines; give at least one, the last of which is the question")
        examples = [(line.image, line.question + line.answer) for line in lines[:-1]]
        documents.append([*few_shot_prompt(examples, lines[-1].image), lines[-1].question + lines[-1].answer])
        end, spans = 1, []
        for line in lines:
            first = end + 1 + len(tokenizer.encode(line.question))
            end += 1 + len(tokenizer.encode(line.question + line.answer))
            spans.append((first, end))
        answer_spans.append(spans)
    rows = interleave(documents, tokenizer, begin=BEGIN_TOKEN, image=IMAGE_TOKEN)
    loss_mask = torch.zeros_like(rows.token_ids, dtype=torch.bool)
    for row, spans in enumerate(answer_spans):
        for first, end in spans:
            loss_mask[row, first:end] = True
    return EpisodeBatch(rows, answer_spans, loss_mask)
