"""The arms that are trained: readers of clips with different position ids, and a reader that writes boxes as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_09_qwen_vl.experiment import boxes
from lessons.lesson_09_qwen_vl.experiment.clips import Timing
from lessons.lesson_09_qwen_vl.experiment.data import QUESTIONS, ClipQuestions, clip_questions
from lessons.lesson_09_qwen_vl.experiment.evaluate import answer_accuracy, question_logits
from lessons.lesson_09_qwen_vl.experiment.reader import ReaderSizes, pretrained_reader, untrained_reader
from lessons.lesson_09_qwen_vl.model import QwenVL
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.training import Batches, LossSum, TrainingConfig, curve_from_history, muon_config, train

Positions = Literal["m-rope", "1-d", "absolute", "frames"]
TOKENS_PER_SECOND = 2.0
"""Time ids per second of video, as in Qwen2.5-VL; there the number is part of the checkpoint's config."""
TRAINING_CLIPS = 10**6
"""Numbers of training clips of one timing; the next timing begins after them."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one arm.

    positions  "m-rope" and "frames": time ids count frames; "absolute": they count parts of a second; "1-d": one
               position per token, without axes
    clips      training clips, or scenes with boxes, per timing
    sections   rotary pairs of a head for time, row and column
    sizes      sizes of a language model from scratch; None: lesson 0's decoder
    """

    positions: Positions = "m-rope"
    clips: int = 1500
    batch_size: int = 16
    learning_rate: float = 5e-3
    sections: Sequence[int] = (4, 2, 2)
    sizes: Mapping[str, Any] | None = None
    precision: str = "float32"

    def build(self, tokenizer: Tokenizer) -> QwenVL:
        """Build the reader."""
        time, row, column = self.sections
        if self.sizes is None:
            return pretrained_reader((time, row, column))
        return untrained_reader(tokenizer.vocab_size, ReaderSizes(**self.sizes), (time, row, column))

    def config(self, steps: int, seed: int) -> TrainingConfig:
        """Return the settings of the training loop."""
        return muon_config(
            steps,
            self.learning_rate,
            seed=seed,
            checkpoint_every=max(100, steps // 4),
            precision=self.precision,
        )


def time_step(positions: Positions, timing: Timing) -> float | None:
    """Return the time ids per frame; None for one-dimensional positions."""
    if positions == "1-d":
        return None
    return TOKENS_PER_SECOND * timing.gap / 1000 if positions == "absolute" else 1.0


# ── Clips ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class ClipBatch(NamedTuple):
    """Clips of one timing with their questions, and the time ids per frame: None for one-dimensional positions."""

    features: Float[Tensor, "batch frames patches width"]
    token_ids: Int[Tensor, "batch text"]
    answer_mask: Bool[Tensor, "batch text"]
    time_step: float | None


class ClipBatches:
    """Batches of clips, the timings in turns; a pure function of the index, as `Batches`."""

    def __init__(self, groups: Sequence[ClipQuestions], recipe: Recipe, seed: int):
        self.groups = groups
        self.steps = [time_step(recipe.positions, group.timing) for group in groups]
        size = recipe.batch_size
        self.batches = [
            Batches(group.bank.index, group.token_ids, group.answer_mask, batch_size=size, seed=seed)
            for group in groups
        ]

    def __call__(self, index: int) -> ClipBatch:
        turn, number = index % len(self.groups), index // len(self.groups)
        rows, token_ids, mask = self.batches[turn](number)
        return ClipBatch(self.groups[turn].bank.features[rows], token_ids, mask, self.steps[turn])


def answer_loss(
    logits: Float[Tensor, "batch text vocab"],
    token_ids: Int[Tensor, "batch text"],
    answer_mask: Bool[Tensor, "batch text"],
) -> LossSum:
    """Return the cross-entropy of the answers' tokens; the logits at a token predict this token."""
    total = cross_entropy(logits[answer_mask].float(), token_ids[answer_mask], reduction="sum")
    return LossSum.of(total, answer_mask.sum())


def train_reader(
    context: RunContext,
    *,
    steps: int,
    trained: Sequence[Sequence[int]],
    tested: Sequence[Sequence[int]],
    types: Sequence[str] = tuple(QUESTIONS),
    held_out: int = 400,
    **recipe_values,
) -> dict:
    """Train a reader on clips of some timings and measure it on clips of others.

    trained        (frames, milliseconds between two frames) of the training clips, in turns
    tested         the same for held-out clips; of each, `<frames>x<gap>_<type>` is the accuracy of a question type
    types          question types, one question of each per clip
    held_out       test clips per timing; validation clips are half as many
    recipe_values  fields of `Recipe`

    The context's data set is ignored: clips are generated.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    tokenizer = load_language_model()[1]
    begin = tokenizer.special_tokens[BEGIN_TOKEN]
    groups = [
        clip_questions(
            tokenizer,
            "train",
            context.seed,
            range(turn * TRAINING_CLIPS, turn * TRAINING_CLIPS + recipe.clips),
            Timing(*values),
            types,
            context.device,
        )
        for turn, values in enumerate(trained)
    ]

    def loss(model: QwenVL, batch: ClipBatch) -> LossSum:
        logits = question_logits(model, batch.features, batch.token_ids, batch.time_step, begin)
        return answer_loss(logits, batch.token_ids, batch.answer_mask)

    result = train(
        recipe.build(tokenizer),
        ClipBatches(groups, recipe, context.seed),
        loss,
        recipe.config(steps, context.seed),
        run=context.run_options(),
    )
    measured: dict = {"loss_curve": curve_from_history(result.history, "loss"), "recipe": asdict(recipe)}
    for split, prefix, count in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        for frames, gap in tested:
            timing = Timing(frames, gap)
            questions = clip_questions(tokenizer, split, TEST_SEED, range(count), timing, types, context.device)
            step = time_step(recipe.positions, timing)
            scores = answer_accuracy(result.model, tokenizer, questions, step, context.device)
            measured |= {f"{prefix}{frames}x{gap}_{name}": value for name, value in scores.items()}
    return measured


# ── Boxes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def train_boxes(
    context: RunContext, *, steps: int, objects: Sequence[int] = (1,), held_out: int = 200, **recipe_values
) -> dict:
    """Train a reader to write boxes as JSON and measure its texts on images of held-out combinations.

    objects   numbers of objects per image, one after another: each has its part of the steps, the last one is tested
    held_out  test images; validation images are half as many

    Of the splits, "" is test and "validation_" is validation: `parsed`, `strict`, `iou` and `iou_half` as in
    `boxes.box_scores`, `blind_iou` of the best constant box, and the first texts.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    tokenizer = load_language_model()[1]
    begin = tokenizer.special_tokens[BEGIN_TOKEN]
    model = recipe.build(tokenizer)

    def loss(model: QwenVL, batch: tuple[Tensor, ...]) -> LossSum:
        features, token_ids, mask = batch
        return answer_loss(question_logits(model, features, token_ids, 1.0, begin), token_ids, mask)

    curves = []
    for stage, count in enumerate(objects):
        scenes = boxes.box_scenes("train", context.seed, recipe.clips, count)
        training = boxes.box_questions(tokenizer, scenes, context.device)
        batches = Batches(*training[:3], batch_size=recipe.batch_size, seed=context.seed)
        config = recipe.config(steps // len(objects), context.seed)
        run = context.subfolder(f"objects-{stage}").run_options()
        curves.append(curve_from_history(train(model, batches, loss, config, run=run).history, "loss"))
    measured: dict = {"loss_curve": curves[-1], "objects": list(objects)}
    for split, prefix, number in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        scenes = boxes.box_scenes(split, TEST_SEED, number, objects[-1])
        questions = boxes.box_questions(tokenizer, scenes, context.device)
        texts = boxes.generate_texts(model, tokenizer, questions, context.device)
        scores = boxes.box_scores(texts, questions.boxes) | {
            "blind_iou": boxes.blind_iou(training.boxes, questions.boxes)
        }
        measured |= {f"{prefix}{name}": value for name, value in scores.items()}
        measured[f"{prefix}texts"] = texts[:8]
    return measured
