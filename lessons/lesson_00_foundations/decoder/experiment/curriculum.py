"""The curriculum of the shipped decoder: interviews from easy to hard, then all types of documents.

`data.toybox.curriculum` has the settings of the stages, and the reason for their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from data.toybox.curriculum import BY_SHAPE, COLORS, COMPARISONS, EVERYTHING, PLACES, REFERENCES
from data.toybox.documents import DOCUMENT_TYPES, INTERVIEW_MIXTURE, document_at, documents
from data.toybox.heldout import TEST_SEED
from data.toybox.interviews import InterviewSetting, interview
from data.toybox.scene import stream
from lessons.lesson_00_foundations.decoder.experiment.answers import answer_accuracies
from lessons.lesson_00_foundations.decoder.experiment.data import (
    HELD_OUT_DOCUMENTS,
    TOKENIZER_DOCUMENTS,
    train_tokenizer,
)
from lessons.lesson_00_foundations.decoder.experiment.evaluate import (
    HeldOutText,
    accuracies_by_examples,
    evaluate_int8,
)
from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer, save_tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.training import Evaluation, TrainingConfig, train

OTHER_MIXTURE = (1, 1, 1, 3, 3, 0)
"""Documents of each type that are no interviews (`data.toybox.documents.DOCUMENT_TYPES`)."""
assert len(OTHER_MIXTURE) == len(DOCUMENT_TYPES)
ROTARY_BASE = 300.0
"""The slowest of the eight rotary pairs per head turns by less than one radian in 100 tokens, so that a question finds
the words of the caption wherever they stand."""
SHARED_STD = 0.3
PURPOSE = 242
"""Number of the random numbers that draw interviews."""
DOCUMENTS_PER_STEP = 4096
"""Numbers that each step may use for its documents."""
MISSES = 4
"""Rows are full when this many documents in a row did not fit."""


@dataclass(frozen=True)
class CurriculumStage:
    """Describe the documents of some training steps.

    steps      number of steps; the last stage lasts until the end
    interviews the interviews of this stage
    other      fraction of documents that are no interviews
    """

    steps: int
    interviews: InterviewSetting
    other: float = 0.0


@dataclass(frozen=True)
class CurriculumRecipe:
    """Set the training of the shipped decoder.

    scale      factor of the stages' numbers of steps
    rows       rows per step, of `length` tokens each
    questions  evaluated questions per type and split at the end; a tenth of it during training
    precision  of matrix products
    """

    steps: int
    scale: float = 1.0
    rows: int = 16
    length: int = 224
    learning_rate: float = 3e-3
    questions: int = 400
    precision: Literal["float32", "bfloat16"] = "float32"


def curriculum(scale: float = 1.0) -> tuple[CurriculumStage, ...]:
    """Return the stages; `scale` multiplies their numbers of steps."""
    stages = (
        (300, COLORS, 0.0),
        (500, BY_SHAPE, 0.0),
        (400, REFERENCES, 0.0),
        (600, PLACES, 0.1),
        (600, COMPARISONS, 0.1),
        (1, EVERYTHING, 0.25),
    )
    return tuple(CurriculumStage(max(1, round(scale * steps)), setting, other) for steps, setting, other in stages)


@torch.no_grad()
def add_shared_direction(model: LanguageModel, std: float = SHARED_STD) -> None:
    """Add one random vector of this standard deviation to the embeddings of all tokens.

    A head that attends by position alone, such as to the third token before, needs queries and keys with a part that is
    the same for all tokens. A Llama has no biases, so this part can only come from a direction that all embeddings
    share. Random embeddings hardly share any, and it would have to be learned first.
    """
    model.embedding.weight += std * torch.randn(model.config.width)


def train_on_curriculum(
    context: RunContext, recipe: CurriculumRecipe, **sizes: int
) -> dict[str, float | int | list[float]]:
    """Train a decoder on the curriculum, and measure its answers, its episodes, its int8 version and n-grams.

    sizes  of the decoder, where they differ from `toy_decoder`'s
    """
    seed = context.seed
    held_out = documents("validation", TEST_SEED + seed, HELD_OUT_DOCUMENTS, mixture=INTERVIEW_MIXTURE)
    texts = documents("train", seed, TOKENIZER_DOCUMENTS, mixture=INTERVIEW_MIXTURE)
    tokenizer = train_tokenizer(texts)
    save_tokenizer(tokenizer, context.folder / "tokenizer.json")
    torch.manual_seed(seed)
    model = toy_decoder(tokenizer.vocab_size, **{"rotary_base": ROTARY_BASE} | sizes)
    add_shared_direction(model)
    batches = CurriculumBatches(curriculum(recipe.scale), tokenizer, recipe.rows, recipe.length, seed)
    config = TrainingConfig(
        recipe.steps,
        recipe.learning_rate,
        optimizer="muon",
        warmup_steps=min(100, recipe.steps // 10),
        betas=(0.9, 0.95),
        precision=recipe.precision,
        seed=seed,
        log_every=25,
        checkpoint_every=max(1, recipe.steps // 20),
    )
    train(
        model,
        batches,
        curriculum_loss,
        config,
        run=context.run_options(tokens_per_step=recipe.rows * recipe.length),
        evaluation=Evaluation(
            lambda model: answer_accuracies(model, tokenizer, count=recipe.questions // 10, seed=seed),
            every=max(1, recipe.steps // 8),
        ),
    )
    test = HeldOutText.encode(tokenizer, held_out)
    bits = cross_entropy_bits(model, test.documents)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": tokenizer.vocab_size,
        "training_tokens": recipe.steps * recipe.rows * recipe.length,
        "bits_per_byte": bits / test.bytes,
        "perplexity": 2 ** (bits / test.tokens),
        **answer_accuracies(model, tokenizer, count=recipe.questions),
        **accuracies_by_examples(model, tokenizer, TEST_SEED + seed),
        **evaluate_int8(model, tokenizer, test),
    }


class CurriculumBatch(NamedTuple):
    """Hold packed documents: token ids, segments, and which tokens answer a question."""

    token_ids: Int[Tensor, "rows tokens"]
    segments: Int[Tensor, "rows tokens"]
    answers: Bool[Tensor, "rows tokens"]


@dataclass
class CurriculumBatches:
    """Pack new documents of the step's stage into rows. `batches(step)` is a pure function of the step.

    No document occurs twice: data that are generated need no epochs.
    """

    stages: Sequence[CurriculumStage]
    tokenizer: Tokenizer
    rows: int
    length: int
    seed: int
    _token_bytes: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._token_bytes = [self.tokenizer.decode_bytes([token_id]) for token_id in range(self.tokenizer.vocab_size)]

    def stage(self, step: int) -> CurriculumStage:
        """Return the stage of a step, counted from zero."""
        for stage in self.stages[:-1]:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def __call__(self, step: int) -> CurriculumBatch:
        stage = self.stage(step)
        begin = self.tokenizer.special_tokens[BEGIN_TOKEN]
        packed: list[list[list[int]]] = [[] for _ in range(self.rows)]
        free = [self.length] * self.rows
        misses, number = 0, step * DOCUMENTS_PER_STEP
        while misses < MISSES:
            document = [begin, *self.tokenizer.encode(self._document(stage, number))][: self.length]
            number += 1
            row = next((row for row in range(self.rows) if free[row] >= len(document)), None)
            if row is None:
                misses += 1
                continue
            packed[row].append(document)
            free[row] -= len(document)
        token_ids = torch.zeros(self.rows, self.length, dtype=torch.long)
        segments = torch.full((self.rows, self.length), -1)
        for row, contents in enumerate(packed):
            start = 0
            for segment, document in enumerate(contents):
                end = start + len(document)
                token_ids[row, start:end], segments[row, start:end] = torch.tensor(document), segment
                start = end
        return CurriculumBatch(token_ids, segments, self.answers(token_ids) & (segments >= 0))

    def _document(self, stage: CurriculumStage, number: int) -> str:
        rng = stream(self.seed, number, PURPOSE)
        if rng.random() < stage.other:
            return document_at("train", self.seed, number, mixture=OTHER_MIXTURE)
        return interview("train", self.seed, number, rng, stage.interviews)

    def answers(self, token_ids: Int[Tensor, "rows tokens"]) -> Bool[Tensor, "rows tokens"]:
        """Return which tokens come after a question mark in their line: the answer, without the end of the line."""
        ids = token_ids.unique().tolist()
        asks = torch.tensor([token_id for token_id in ids if b"?" in self._token_bytes[token_id]])
        ends = torch.tensor([token_id for token_id in ids if b"\n" in self._token_bytes[token_id]])
        is_question, is_end = torch.isin(token_ids, asks), torch.isin(token_ids, ends)
        index = torch.arange(token_ids.shape[1]).expand_as(token_ids)
        last_question = torch.where(is_question, index, -1).cummax(dim=1).values
        last_end = torch.where(is_end, index, -1).cummax(dim=1).values
        return (last_question > last_end) & ~is_question


def curriculum_loss(model: LanguageModel, batch: CurriculumBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean cross-entropy of the answers' tokens + that of all other tokens, in nats.

    An answer is one token in about twelve. As a part of one mean it would hardly count against the words of captions
    and questions, most of which cannot be predicted.
    """
    token_ids, segments, answers = batch
    logits = model(token_ids, segments=segments)
    predicted = has_previous_token(segments)
    losses = F.cross_entropy(logits[:, :-1][predicted].float(), token_ids[:, 1:][predicted], reduction="none")
    is_answer = answers[:, 1:][predicted]
    of_answers, of_others = losses[is_answer].mean(), losses[~is_answer].mean()
    return of_answers + of_others, {"answers": of_answers.detach(), "others": of_others.detach()}
