"""Training and evaluation data: toy-world images, each with a description or with questions and answers.

Lesson 0's language model was pretrained on interviews: a caption of a scene, then questions with answers, one per
line. Here the image takes the place of the caption.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.conversations import PURPOSE, SceneSetting, Turns, description_turns, question_turns
from data.toybox.heldout import scene_at
from data.toybox.questions import Question, question_at
from data.toybox.scene import Scene, stream
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_05_llava.model import Llava, encode_interview
from shared.finetuning import collate
from shared.tokenizers import Tokenizer

DESCRIPTION_EVERY = 12
"""In stage 2, one scene in so many is described instead of asked about."""


@dataclass(frozen=True)
class DataSource:
    """Everything that turns scenes into model inputs.

    use_image  False for the blind baseline: no image features, no image tokens
    """

    model: Llava
    tokenizer: Tokenizer
    setting: SceneSetting
    use_image: bool = True
    device: str = "cpu"

    @torch.no_grad()
    def features(self, scenes: Sequence[Scene]) -> Float[Tensor, "images patches width"]:
        """Encode each scene once with the frozen vision encoder; [images, 0, width] for the blind baseline."""
        model = self.model
        if not self.use_image:
            return torch.zeros(len(scenes), 0, model.vision_encoder.config.width * len(model.feature_layers))
        batches = render_tensors(scenes).split(256)
        return torch.cat([model.image_features(normalize_pixels(pixels.to(self.device))).cpu() for pixels in batches])


@dataclass(frozen=True)
class TrainingConversations:
    """Training data: row i of every tensor belongs to image i.

    answer_mask  which token ids belong to answers
    segments     0 for tokens, −1 for padding
    """

    features: Float[Tensor, "images patches width"]
    token_ids: Int[Tensor, "images text"]
    answer_mask: Bool[Tensor, "images text"]
    segments: Int[Tensor, "images text"]


@dataclass(frozen=True)
class EvaluationQuestions:
    """Evaluation data: one question per image, with its type and correct answer."""

    features: Float[Tensor, "images patches width"]
    prompts: Sequence[Int[Tensor, "_"]]
    questions: Sequence[str]
    types: Sequence[str]
    answers: Sequence[str]
    scenes: Sequence[Scene] = field(default=())


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def description_data(source: DataSource, seed: int, count: int) -> TrainingConversations:
    """Return stage 1's data: a full caption without a question, or a short one after `DESCRIBE_PROMPT`."""
    scenes = [scene_at("train", seed, number, source.setting.objects) for number in range(count)]
    return encode_scenes(source, scenes, list(map(description_turns, scenes, range(count))))


def question_data(source: DataSource, seed: int, count: int, turns: int) -> TrainingConversations:
    """Return stage 2's data: scenes with `turns` questions each; one scene in `DESCRIPTION_EVERY` is described.

    An image takes as many tokens as several questions, so each scene has several. They are few and of different types,
    because an earlier answer can reveal a later one.
    """
    setting = source.setting
    scenes = [scene_at("train", seed + 1, number, setting.objects) for number in range(count)]
    conversations = [
        description_turns(scene, number // DESCRIPTION_EVERY)
        if number % DESCRIPTION_EVERY == 0
        else question_turns(scene, scenes[number - 1], turns, setting, stream(seed, number, PURPOSE))
        for number, scene in enumerate(scenes)
    ]
    return encode_scenes(source, scenes, conversations)


def encode_scenes(source: DataSource, scenes: Sequence[Scene], conversations: Sequence[Turns]) -> TrainingConversations:
    """Encode one conversation about each scene."""
    features = source.features(scenes)
    counts = [features.shape[1]]
    rows = [encode_interview(source.tokenizer, turns, image_token_counts=counts) for turns in conversations]
    return TrainingConversations(features, *collate(rows))


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluation_questions(
    source: DataSource,
    split: str,
    seed: int,
    count: int,
    answer_text: Callable[[Question], str] = attrgetter("answer"),
) -> EvaluationQuestions:
    """Return questions about new scenes of a split: all types equally often, all answers of a type equally often.

    `answer_text` writes the expected answer to a question; unless given, it is one word or a place.
    """
    pairs = [question_of_number(split, seed, number, source.setting) for number in range(count)]
    scenes, questions = [scene for scene, _ in pairs], [question for _, question in pairs]
    features = source.features(scenes)
    texts = [question.text for question in questions]
    return EvaluationQuestions(
        features,
        _prompts(source.tokenizer, texts, features),
        texts,
        [question.type for question in questions],
        [answer_text(question) for question in questions],
        scenes,
    )


def question_of_number(split: str, seed: int, number: int, setting: SceneSetting) -> tuple[Scene, Question]:
    """Return the scene and the question of a number; question types alternate."""
    question_type = setting.question_types[number % len(setting.question_types)]
    return question_at(split, seed, number, question_type, setting.objects)


def evaluation_descriptions(source: DataSource, split: str, seed: int, count: int) -> EvaluationQuestions:
    """Return new scenes of a split to be described in full, without a question, as in stage 1."""
    scenes = [scene_at(split, seed, number, source.setting.objects) for number in range(count)]
    features = source.features(scenes)
    turns = [description_turns(scene, 0)[0] for scene in scenes]
    texts, answers = [question for question, _ in turns], [answer for _, answer in turns]
    prompts = _prompts(source.tokenizer, texts, features)
    return EvaluationQuestions(features, prompts, texts, ["description"] * count, answers, scenes)


def _prompts(tokenizer: Tokenizer, questions: Sequence[str], features: Tensor) -> list[Int[Tensor, "_"]]:
    counts = [features.shape[1]]
    return [
        torch.tensor(encode_interview(tokenizer, [(question, "")], image_token_counts=counts).token_ids)
        for question in questions
    ]
