"""Mixed preference optimization after training: pairs of a right and a wrong answer about an image.

The rejected answer is the model's own wrong one where it has one, else another answer of the same question type. The
reference is the model before.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from data.toybox.conversations import scene_setting
from data.toybox.questions import ANSWERS, question_at
from data.toybox.scene import pick, stream
from lessons.lesson_05_llava.model import encode_interview
from lessons.lesson_10_internvl.experiment.base_model import IMAGE_TOKENS, device_of, encode_scenes, starting_model
from lessons.lesson_10_internvl.experiment.data import Document, DocumentBatch, collate
from lessons.lesson_10_internvl.experiment.evaluate import (
    BATCH,
    answered_exactly,
    batch_logits,
    image_scores,
    text_scores,
    to_device,
)
from lessons.lesson_10_internvl.model import InternVL
from lessons.lesson_10_internvl.model.preference import MPOSettings, PreferencePairs, RewardShift, mpo_loss
from shared.course.context import RunContext
from shared.finetuning.preference import response_log_probability
from shared.tokenizers import Tokenizer
from shared.training import LossSum, TrainingConfig, curve_from_history, load_weights, train

START = "mixed"
"""The arm whose model is the start and the reference."""
FIRST_SCENE, PURPOSE = 2**30, 240
"""Number of the first scene, apart from those of the corpora; and the purpose of `stream` for rejected answers."""


class Pair(NamedTuple):
    """One question about an image with the right answer, and with a wrong one."""

    preferred: Document
    rejected: Document


def answer_pairs(model: InternVL, tokenizer: Tokenizer, seed: int, count: int, objects: Sequence[int]) -> list[Pair]:
    """Return pairs for `count` training questions."""
    setting = scene_setting(objects)
    types = setting.question_types
    drawn = [
        question_at("train", seed, FIRST_SCENE + number, types[number % len(types)], setting.objects)
        for number in range(count)
    ]
    grids = encode_scenes([scene for scene, _ in drawn], str(device_of(model)))

    def document(row: int, answer: str) -> Document:
        encoded = encode_interview(tokenizer, [(drawn[row][1].text, answer)], image_token_counts=[IMAGE_TOKENS])
        return Document(encoded.token_ids, encoded.loss_mask, grids[row])

    right = [document(row, question.answer) for row, (_, question) in enumerate(drawn)]
    own = answered_exactly(model, right)
    pairs = []
    for row, (_, question) in enumerate(drawn):
        rng = stream(seed, row, PURPOSE)
        others = [answer for answer in ANSWERS[question.type] if answer != question.answer]
        wrong = (
            pick(rng, others) if own[row] else likeliest(model, [document(row, answer) for answer in others], others)
        )
        pairs.append(Pair(right[row], document(row, wrong)))
    return pairs


@torch.no_grad()
def likeliest(model: InternVL, documents: Sequence[Document], answers: Sequence[str]) -> str:
    """Return the answer to which the model gives the highest probability."""
    batch = to_device(collate(documents), device_of(model))
    scores = response_log_probability(batch_logits(model, batch), batch.token_ids, batch.loss_mask)
    return answers[int(scores.argmax())]


def log_probabilities(model: InternVL, batch: DocumentBatch) -> Tensor:
    """Return the log-probability of each document's answer."""
    return response_log_probability(batch_logits(model, batch), batch.token_ids, batch.loss_mask)


class PairBatches:
    """Batches of pairs with the reference's log-probabilities; a pure function of the index."""

    def __init__(self, pairs: Sequence[Pair], reference: InternVL, batch_size: int):
        self.pairs, self.batch_size = pairs, batch_size
        rows = [document for pair in pairs for document in pair]
        with torch.no_grad():
            parts = [
                log_probabilities(reference, to_device(collate(rows[first : first + BATCH]), device_of(reference)))
                for first in range(0, len(rows), BATCH)
            ]
        self.reference = torch.cat(parts).cpu().unflatten(0, (-1, 2))

    def __call__(self, index: int) -> tuple[DocumentBatch, Tensor]:
        count = len(self.pairs) // self.batch_size
        first = index % count * self.batch_size
        chosen = slice(first, first + self.batch_size)
        return collate([document for pair in self.pairs[chosen] for document in pair]), self.reference[chosen]


@dataclass(frozen=True)
class Recipe:
    """The settings of the arm.

    steps    of training
    pairs    training pairs
    weights  of the losses preference, quality and generation; (0, 0, 1) is supervised fine-tuning on the same answers
    objects  least and greatest number of objects per image
    """

    steps: int
    pairs: int
    weights: Sequence[float] = (0.8, 0.2, 1.0)
    objects: Sequence[int] = (1, 1)
    batch_size: int = 8
    learning_rate: float = 3e-4

    def config(self, seed: int) -> TrainingConfig:
        """Return the settings of the training loop: AdamW without weight decay, a tenth of the steps as warm-up."""
        return TrainingConfig(
            self.steps,
            self.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            warmup_steps=self.steps // 10,
            seed=seed,
        )


def train_preferences(
    context: RunContext, *, held_out: int = 480, documents: int = 300, episodes: int = 150, **recipe_values
) -> dict:
    """Continue the arm `START` on preference pairs; measure answers and text before and after, on test.

    held_out, documents, episodes  as in `train_corpora`
    recipe_values                  fields of `Recipe`

    The context's data set is ignored.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    model, tokenizer = starting_model(context.device)
    load_weights(model, context.folder_of(START) / "stage-0")
    setting = scene_setting(recipe.objects)
    before = image_scores(model, tokenizer, "test", held_out, setting)
    examples = answer_pairs(model, tokenizer, context.seed, recipe.pairs, recipe.objects)
    batches = PairBatches(examples, copy.deepcopy(model).eval(), recipe.batch_size)
    shift, (preference, quality, generation) = RewardShift(), recipe.weights
    settings = MPOSettings(preference=preference, quality=quality, generation=generation)

    def loss(model: InternVL, batch: tuple) -> tuple[LossSum, dict[str, Tensor]]:
        rows, reference = batch
        own = log_probabilities(model, rows).unflatten(0, (-1, 2))
        lengths = rows.loss_mask[::2, 1:].sum(dim=1)
        compared = PreferencePairs(own[:, 0], own[:, 1], reference[:, 0], reference[:, 1], lengths)
        mean, parts = mpo_loss(compared, shift, settings)
        return LossSum.of_mean(mean, len(own)), parts

    result = train(model, batches, loss, recipe.config(context.seed), run=context.run_options())
    after = image_scores(model, tokenizer, "test", held_out, setting)
    return {
        **{f"before_{name}": value for name, value in before.items()},
        **after,
        **text_scores(model, tokenizer, "test", documents, episodes),
        "wins_curve": curve_from_history(result.history, "preferred_wins"),
        "gain": after["answers"] - before["answers"],
    }
