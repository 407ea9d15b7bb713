"""The arms: a Flamingo that learns to look, one without gates, and one whose language model learns too."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data.toybox import documents as text
from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits, encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, load_language_model
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_04_flamingo.experiment.episodes import TRAINING_CHOICES, Episodes, Gallery, laid_out, lines_of
from lessons.lesson_04_flamingo.experiment.measure import (
    TEST_SEED,
    accuracies_in_images,
    accuracies_in_words,
    bits_in_text,
    gate_sizes,
    reading,
)
from lessons.lesson_04_flamingo.model import Flamingo, FlamingoConfig, ResamplerConfig, text_loss, training_stage
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.training import Batches, Evaluation, RunOptions, Stage, TrainingConfig, curve_from_history, train

MIXTURE = text.INTERVIEW_MIXTURE
"""Of each kind of plain text, as the language model has read it."""
TEXT_DOCUMENTS = 300
HEAD_DIM = 16
EVERYTHING = ("resampler.*", "inserted.*", "language.*")


def train_flamingo(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    gates: Literal["scalar", "vector", "none"] = "vector",
    language_learns: bool = False,
    latents: int = 8,
    depth: int = 1,
    scenes: int = 4000,
    documents: int = 4000,
    shots: int = 4,
    batch_size: int = 24,
    text_rows: int = 2,
    learning_rate: float = 2e-2,
    held_out: int = 400,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> dict:
    """Train what is inserted on episodes of images; measure accuracy by the number of examples, and what it cost in text.

    language_learns  the ablation: the language model's own weights learn as well
    shots            examples in an episode that is trained on, before its last line
    text_rows        rows of plain text beside each batch of episodes
    held_out         how many episodes each accuracy is taken over
    (data is not used: the toy world is what the frozen ends have seen)
    """
    eye = load_vision_encoder()
    language, tokenizer = load_language_model()
    before = weights_digest(eye), weights_digest(language)
    plain = encode_documents(tokenizer, text.documents("validation", TEST_SEED, TEXT_DOCUMENTS, mixture=MIXTURE))
    plain_tokens = sum(len(document) - 1 for document in plain)
    measured = {
        "text_bits_before": cross_entropy_bits(language, plain) / plain_tokens,
        **accuracies_in_words(language, tokenizer, seed, held_out),
    }
    torch.manual_seed(seed)
    model = small_flamingo(eye, language, gates=gates, latents=latents, depth=depth).to(device)
    measured["text_bits_start"] = bits_in_text(model, plain) / plain_tokens
    gallery = Gallery.of(eye, seed, scenes, device)
    lessons = laid_out(
        [lines_of(gallery, seed, number, shots + 1, choices=TRAINING_CHOICES) for number in range(documents)], tokenizer
    )
    result = train(
        model,
        Mixture.of(gallery, lessons, batch_size, read(tokenizer, seed, documents // 2), text_rows, seed),
        loss_of,
        TrainingConfig(
            steps=steps,
            learning_rate=learning_rate,
            optimizer="muon",
            betas=(0.9, 0.95),
            warmup_steps=steps // 10,
            seed=seed,
            log_every=max(1, steps // 50),
            precision=precision,
        ),
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(gate_sizes, every=max(1, steps // 25)),
        stages=(Stage(steps, EVERYTHING),) if language_learns else training_stage(steps),
    )
    return (
        measured
        | accuracies_in_images(model.eval(), tokenizer, gallery, seed, held_out, device)
        | {
            "text_bits_after": bits_in_text(model, plain) / plain_tokens,
            "frozen_changed": float((weights_digest(eye), weights_digest(language)) != before),
            "parameters": sum(parameter.numel() for part in (model.resampler, model.inserted) for parameter in part.parameters()),
            "latents": latents,
            "depth": depth,
            "loss_curve": curve_from_history(result.history, "loss"),
        }
        | {f"{name}_curve": curve_from_history(result.history, f"evaluation/{name}") for name in gate_sizes(model)}
    )  # fmt: skip


def small_flamingo(
    eye: VisionTransformer,
    language: LanguageModel,
    *,
    gates: Literal["scalar", "vector", "none"] = "vector",
    latents: int = 8,
    depth: int = 1,
) -> Flamingo:
    """A Flamingo between the two frozen ends; it looks before every block."""
    width = eye.config.width
    resampler = ResamplerConfig(width, latents, depth, max(1, width // HEAD_DIM), HEAD_DIM)
    return Flamingo(FlamingoConfig(resampler, 1, gates), eye, language)


def read(tokenizer: Tokenizer, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Plain text as the language model has read it, packed into rows: tokens, and which document each belongs to."""
    return pack_documents(
        encode_documents(tokenizer, text.documents("train", seed, count, mixture=MIXTURE)), CONTEXT_LENGTH
    )


@dataclass(frozen=True)
class Mixture:
    """Both kinds of document that a step learns from, as the paper adds up the losses of its data sets (section 2.4).

    `mixture(number)` is a pure function of the number: a batch of episodes, and rows of plain text.
    """

    episodes: Batches
    text: Batches | None

    @classmethod
    def of(
        cls,
        gallery: Gallery,
        lessons: Episodes,
        batch_size: int,
        plain: tuple[Tensor, Tensor],
        text_rows: int,
        seed: int,
    ) -> "Mixture":
        rows = lessons.rows
        episodes = Batches(
            rows.tokens, rows.images, rows.looks, rows.segments, lessons.wanted, batch_size=batch_size, seed=seed,
            augment=lambda batch, _: (batch[0], gallery.seen(batch[1]), *batch[2:]),
        )  # fmt: skip
        return cls(episodes, Batches(*plain, batch_size=text_rows, seed=seed) if text_rows else None)

    def __call__(self, number: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        return self.episodes(number), self.text and self.text(number)


def loss_of(model: Flamingo, batch: tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]) -> Tensor:
    """The surprise at the answers, and that at plain text.

    Every line of an episode asks, so that each is learned with few examples and with many. Text looks at nothing; without it
    what is inserted would never learn to keep out of it.
    """
    (tokens, features, looks, segments, wanted), plain = batch
    loss = text_loss(model(tokens, model.media(features), looks, segments), tokens, wanted)
    if plain is None:
        return loss
    return loss + next_token_loss(reading(model, *plain), *plain)
