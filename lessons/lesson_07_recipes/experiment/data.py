"""The data axis and the resolution axis: rows of token ids about images, for training and for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.conversations import PURPOSE, SceneSetting, Turns, description_turns, question_turns
from data.toybox.heldout import TEST_SEED
from data.toybox.questions import ANSWERS, question_at
from data.toybox.scene import Scene, stream
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_05_llava.model import encode_interview
from lessons.lesson_07_recipes.experiment.encoders import encode_images
from shared.finetuning import collate
from shared.tokenizers import Tokenizer

DESCRIPTION_EVERY = 4
"""With questions, one scene in so many is described instead of asked about."""
TURNS = 3
"""Questions per scene."""


@dataclass(frozen=True)
class Rows:
    """Rows of token ids, one per image.

    answer_mask  the tokens of answers and descriptions
    segments     0 for tokens, −1 for padding
    """

    features: Float[Tensor, "images patches width"]
    token_ids: Int[Tensor, "images text"]
    answer_mask: Bool[Tensor, "images text"]
    segments: Int[Tensor, "images text"]


@dataclass(frozen=True)
class EvaluationSet:
    """Scenes of a split with one question each: all question types equally often."""

    features: Float[Tensor, "images patches width"]
    turns: Sequence[Turns]
    types: Sequence[str]

    @property
    def chance(self) -> float:
        """The expected accuracy of random answers, drawn uniformly from those that each question's type allows."""
        return sum(1 / len(ANSWERS[name]) for name in self.types) / len(self.types)


@dataclass
class Lab:
    """What all runs with one encoder share: scenes, their features, evaluation sets.

    sets  "seen": the validation split; "unseen": the test split
    """

    tokenizer: Tokenizer
    scenes: Sequence[Scene]
    setting: SceneSetting
    features: Float[Tensor, "scenes patches width"]
    sets: dict[str, EvaluationSet]


def build_lab(
    encoder: VisionTransformer,
    tokenizer: Tokenizer,
    scenes: Sequence[Scene],
    *,
    setting: SceneSetting,
    held_out: int,
    device: str,
) -> Lab:
    """Encode the training scenes, and `held_out` evaluation scenes per split, once.

    setting  the number of objects per scene, and the types of the questions
    """
    sets = {
        name: evaluation_set(encoder, split, held_out, setting, device)
        for name, split in (("seen", "validation"), ("unseen", "test"))
    }
    return Lab(tokenizer, scenes, setting, encode_images(encoder, scenes, device), sets)


def evaluation_set(
    encoder: VisionTransformer, split: str, count: int, setting: SceneSetting, device: str
) -> EvaluationSet:
    """Return the first `count` questions of a split with the features of their images."""
    types = setting.question_types
    pairs = [
        question_at(split, TEST_SEED, number, types[number % len(types)], setting.objects) for number in range(count)
    ]
    features = encode_images(encoder, [scene for scene, _ in pairs], device)
    turns = [[(question.text, question.answer)] for _, question in pairs]
    return EvaluationSet(features, turns, [question.type for _, question in pairs])


def training_turns(lab: Lab, *, questions: bool, seed: int) -> list[Turns]:
    """Return one conversation per training scene: a description, or with `questions` for most scenes some questions."""
    return [
        description_turns(scene, number // DESCRIPTION_EVERY)
        if number % DESCRIPTION_EVERY == 0
        else question_turns(scene, lab.scenes[number - 1], TURNS, lab.setting, stream(seed, number, PURPOSE))
        if questions
        else description_turns(scene, number)
        for number, scene in enumerate(lab.scenes)
    ]


def encode_rows(
    tokenizer: Tokenizer,
    features: Float[Tensor, "images patches width"],
    turns: Sequence[Turns],
    image_tokens: int,
) -> Rows:
    """Encode one conversation per image, with `image_tokens` places for the image before the text."""
    rows = [encode_interview(tokenizer, each, image_token_counts=[image_tokens]) for each in turns]
    return Rows(features, *collate(rows))
