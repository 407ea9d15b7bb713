"""The training arm: Flamingo on few-shot episodes of images, beside plain text."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from data.toybox.documents import INTERVIEW_MIXTURE, documents
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model import (
    LanguageModel,
    has_previous_token,
    next_token_loss,
    pack_documents,
)
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits, encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, load_language_model
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_04_flamingo.experiment.data import (
    TRAINING_QUESTIONS,
    EncodedScenes,
    EpisodeBatch,
    episode_lines,
    tokenize_episodes,
)
from lessons.lesson_04_flamingo.experiment.evaluate import (
    gate_sizes,
    image_accuracies,
    text_accuracies,
    text_bits,
    text_logits,
)
from lessons.lesson_04_flamingo.model import Flamingo, FlamingoConfig, ResamplerConfig, text_loss, training_stage
from shared.course.context import RunContext
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.training import Batches, Evaluation, LossSum, Stage, TrainingConfig, curve_from_history, muon_config, train

HEAD_DIM = 16
ALL_TRAINED = ("resampler.*", "cross_attention_layers.*", "language_model.*")
Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]
"""A batch of episodes, and rows of plain text or None."""


@dataclass(frozen=True)
class FlamingoRecipe:
    """Set the model, the data and the training of a Flamingo.

    train_language_model  whether the language model's weights are trained too, as an ablation
    latents, depth        sizes of the resampler
    scenes, documents     number of training images, and of training episodes; half as many text documents
    shots                 examples per training episode, before its last line
    text_rows             rows of plain text beside each batch of episodes
    held_out              number of test episodes per accuracy
    test_scenes           number of images that test episodes and linear probes draw from
    text_documents        number of documents of plain text whose cross-entropy is measured
    """

    steps: int
    gates: Literal["scalar", "vector", "none"] = "vector"
    train_language_model: bool = False
    latents: int = 8
    depth: int = 1
    scenes: int = 4000
    documents: int = 4000
    shots: int = 4
    batch_size: int = 24
    text_rows: int = 2
    learning_rate: float = 2e-2
    held_out: int = 400
    test_scenes: int = 1_500
    text_documents: int = 300
    precision: Literal["float32", "bfloat16"] = "float32"

    def training_config(self, seed: int) -> TrainingConfig:
        """Return the settings of the training run."""
        return muon_config(self.steps, self.learning_rate, seed=seed, log_lines=50, precision=self.precision)

    def stages(self) -> tuple[Stage, ...]:
        """Return the training stage: which weights are trained."""
        return (Stage(self.steps, ALL_TRAINED),) if self.train_language_model else training_stage(self.steps)


def train_flamingo(context: RunContext, **settings: Any) -> dict[str, Any]:
    """Train the inserted layers on episodes and measure them; `settings` are those of `FlamingoRecipe`.

    Measured are the accuracy by the number of examples, and the cross-entropy of plain text before and after. The data
    set of the context is not used: both frozen models were trained on the toy world.
    """
    recipe, seed, device = FlamingoRecipe(**settings), context.seed, context.device
    vision_encoder = load_vision_encoder()
    language_model, tokenizer = load_language_model()
    frozen = weights_digest(vision_encoder), weights_digest(language_model)
    texts = documents("validation", TEST_SEED, recipe.text_documents, mixture=INTERVIEW_MIXTURE)
    text_ids = encode_documents(tokenizer, texts)
    predicted_tokens = sum(len(document) - 1 for document in text_ids)
    measured: dict[str, Any] = {"text_bits_before": cross_entropy_bits(language_model, text_ids) / predicted_tokens}
    measured |= text_accuracies(language_model, tokenizer, seed, recipe.held_out)
    torch.manual_seed(seed)
    model = build_flamingo(
        vision_encoder, language_model, gates=recipe.gates, latents=recipe.latents, depth=recipe.depth
    ).to(device)
    measured["text_bits_start"] = text_bits(model, text_ids) / predicted_tokens
    encoded = EncodedScenes.sample(vision_encoder, seed, recipe.scenes, device)
    batches = mixed_batches(recipe, seed, encoded, tokenizer)
    result = train(
        model,
        batches,
        partial(training_loss, tokens_per_row=batches.tokens_per_row),
        recipe.training_config(seed),
        run=context.run_options(),
        evaluation=Evaluation(gate_sizes, every=max(1, recipe.steps // 25)),
        stages=recipe.stages(),
    )
    model.eval()
    test_scenes = EncodedScenes.sample(vision_encoder, TEST_SEED + seed, recipe.test_scenes, device)
    measured |= image_accuracies(model, tokenizer, encoded, test_scenes, seed, recipe.held_out)
    trained = (*model.resampler.parameters(), *model.cross_attention_layers.parameters())
    curves = {f"{name}_curve": curve_from_history(result.history, f"evaluation/{name}") for name in gate_sizes(model)}
    return (
        measured
        | curves
        | {
            "text_bits_after": text_bits(model, text_ids) / predicted_tokens,
            "frozen_changed": float((weights_digest(vision_encoder), weights_digest(language_model)) != frozen),
            "parameters": sum(parameter.numel() for parameter in trained),
            "latents": recipe.latents,
            "depth": recipe.depth,
            "loss_curve": curve_from_history(result.history, "loss"),
        }
    )


def build_flamingo(
    vision_encoder: VisionTransformer,
    language_model: LanguageModel,
    *,
    gates: Literal["scalar", "vector", "none"] = "vector",
    latents: int = 8,
    depth: int = 1,
) -> Flamingo:
    """Return a Flamingo around the two frozen models, with cross-attention before every block."""
    width = vision_encoder.config.width
    resampler = ResamplerConfig(width, latents, depth, max(1, width // HEAD_DIM), HEAD_DIM)
    config = FlamingoConfig(resampler, cross_attention_interval=1, gates=gates)
    return Flamingo(config, vision_encoder, language_model)


def packed_text(tokenizer: Tokenizer, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Return plain text documents, as in the language model's training, packed into rows: token ids and segments."""
    texts = documents("train", seed, count, mixture=INTERVIEW_MIXTURE)
    return pack_documents(encode_documents(tokenizer, texts), CONTEXT_LENGTH)


class TokensPerRow(NamedTuple):
    """Hold the mean number of predicted tokens per row of the training data: of episodes, and of plain text."""

    episodes: float
    text: float


@dataclass(frozen=True)
class MixedBatches:
    """Batches of episodes and of plain text, whose losses are added (section 2.4).

    `batches(number)` is a pure function of the number: a batch of episodes, and rows of plain text or None.
    """

    episodes: Batches
    text: Batches | None
    tokens_per_row: TokensPerRow

    def __call__(self, number: int) -> Batch:
        return self.episodes(number), self.text and self.text(number)


def mixed_batches(recipe: FlamingoRecipe, seed: int, encoded: EncodedScenes, tokenizer: Tokenizer) -> MixedBatches:
    """Return the training batches of a recipe."""
    lines = [
        episode_lines(encoded, seed, number, recipe.shots + 1, questions=TRAINING_QUESTIONS)
        for number in range(recipe.documents)
    ]
    episodes = tokenize_episodes(lines, tokenizer)
    token_ids, segments = packed_text(tokenizer, seed, recipe.documents // 2)
    text = Batches(token_ids, segments, batch_size=recipe.text_rows, seed=seed) if recipe.text_rows else None
    tokens_per_row = TokensPerRow(
        episodes.loss_mask[:, 1:].sum().item() / len(lines), has_previous_token(segments).sum().item() / len(segments)
    )
    return MixedBatches(episode_batches(episodes, encoded, recipe.batch_size, seed), text, tokens_per_row)


def episode_batches(episodes: EpisodeBatch, encoded: EncodedScenes, batch_size: int, seed: int) -> Batches:
    """Return batches of (token ids, image features, image index, segments, loss mask)."""
    rows = episodes.rows
    return Batches(
        rows.token_ids,
        rows.images,
        rows.image_index,
        rows.segments,
        episodes.loss_mask,
        batch_size=batch_size,
        seed=seed,
        augment=lambda batch, _: (batch[0], encoded.features_of(batch[1]), *batch[2:]),
    )


def training_loss(model: Flamingo, batch: Batch, tokens_per_row: TokensPerRow) -> LossSum:
    """Return the cross-entropy of all answers of the episodes, plus that of plain text (arXiv:2204.14198, eq. 2).

    Every line of an episode has a loss, so answers are learned after few and after many examples. The loss on plain
    text, which attends to no image, keeps the inserted layers from degrading it.

    As in the paper, the loss of a data set is a mean over rows of the sum over a row's tokens. Its weight λ is one over
    the mean number of tokens per row of the data set. This constant makes the gradients of several small batches add
    up to those of a large one. The number of tokens in a batch would not: it differs from batch to batch.
    """
    (token_ids, image_features, image_index, segments, loss_mask), text = batch
    logits = model(token_ids, model.resample(image_features), image_index, segments)
    answers = LossSum.of_mean(text_loss(logits, token_ids, loss_mask), loss_mask[:, 1:].sum())
    mean = answers.total / (len(token_ids) * tokens_per_row.episodes)
    if text is not None:
        text_ids, text_segments = text
        text_mean = next_token_loss(text_logits(model, *text), *text)
        plain = LossSum.of_mean(text_mean, has_previous_token(text_segments).sum())
        mean = mean + plain.total / (len(text_ids) * tokens_per_row.text)
    return LossSum.of_mean(mean, len(token_ids))
