"""The arms: a Flamingo that learns to look, one without gates, and one whose language model learns too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lessons.lesson_00_foundations.decoder import text
from lessons.lesson_00_foundations.decoder.arms import encoded, surprise
from lessons.lesson_03_blip2.arms import frozen
from lessons.lesson_04_flamingo.arms.episodes import Episodes, episodes
from lessons.lesson_04_flamingo.model import (
    Flamingo,
    FlamingoConfig,
    ResamplerConfig,
    text_loss,
    training_stage,
)
from shared.training import Stage, TrainingConfig, curve_from_history, train

SHOTS = (0, 1, 2, 4, 8)
TEST_SEED = 1_000
TEXT_DOCUMENTS = 200


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
    every: int = 1,
    latents: int = 8,
    depth: int = 2,
    documents: int = 1500,
    shots: int = 7,
    batch_size: int = 16,
    learning_rate: float = 5e-3,
    held_out: int = 200,
) -> dict:
    """Train what is inserted on episodes of images; measure accuracy by the number of examples, and what it cost in text.

    language_learns  the ablation: the language model's own weights learn as well
    (data is not used: the toy world is what the frozen ends have seen)
    """
    torch.manual_seed(seed)
    eye = frozen.load_eye()
    language, tokenizer = frozen.load_language()
    held_out_text = encoded(tokenizer, text.documents("validation", TEST_SEED, TEXT_DOCUMENTS))
    text_tokens = sum(len(document) - 1 for document in held_out_text)
    bits_before = surprise(language, held_out_text) / text_tokens
    before = frozen.digest(eye), frozen.digest(language)
    training = episodes(eye, tokenizer, seed, documents, shots, held_out=False, device=device)
    heads = max(1, training.features.shape[2] // 16)
    resampler = ResamplerConfig(training.features.shape[2], latents, depth, heads, head_dim=16)
    model = Flamingo(FlamingoConfig(resampler, every, gates), eye, language.requires_grad_(True)).to(device)
    stages = (Stage(steps, ("resampler.*", "inserted.*", "language.*")),) if language_learns else training_stage(steps)
    result = train(
        model, Batches(training, batch_size, seed), loss_of,
        TrainingConfig(
            steps=steps, learning_rate=learning_rate, optimizer="muon", betas=(0.9, 0.95), warmup_steps=steps // 10, seed=seed,
            log_every=max(1, steps // 40),
        ),
        folder=folder, resume=resume, device=device, stages=stages, label=folder.name,
        evaluate=gate_sizes, evaluate_every=max(1, steps // 12),
    )  # fmt: skip
    model.eval()
    measured = {
        f"{'held_out' if unseen else 'seen'}_{shots}": accuracy(
            model, episodes(eye, tokenizer, TEST_SEED, held_out, shots, held_out=unseen, device=device), device
        )
        for unseen in (False, True)
        for shots in SHOTS
    }
    return measured | {
        "text_bits_before": bits_before,
        "text_bits_after": bits_in_text(model, held_out_text, device) / text_tokens,
        "frozen_changed": float((frozen.digest(eye), frozen.digest(language)) != before),
        "loss_curve": curve_from_history(result.history, "loss"),
        **{
            f"{name}_curve": curve_from_history(result.history, f"evaluation/{name}")
            for name in (gate_sizes(model) if gates != "none" else ())
        },
        "parameters": sum(
            p.numel() for name, p in model.named_parameters() if name.startswith(("resampler", "inserted"))
        ),
    }


class Batches:
    """Episodes in shuffled batches; `batches(number)` is a pure function of the number."""

    def __init__(self, training: Episodes, batch_size: int, seed: int):
        self.training, self.batch_size, self.seed = training, batch_size, seed

    def __call__(self, number: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        rows = torch.randperm(len(self.training.rows.tokens), generator=generator)[: self.batch_size]
        of = self.training.rows
        return (
            of.tokens[rows],
            self.training.images(rows),
            of.looks[rows],
            of.segments[rows],
            self.training.wanted[rows],
        )


def loss_of(model: Flamingo, batch: tuple[Tensor, ...]) -> Tensor:
    """The surprise at the answers: every line of an episode asks, so that each is learned with few examples and with many."""
    tokens, features, looks, segments, wanted = batch
    return text_loss(model(tokens, model.media(features), looks, segments), tokens, wanted)


def gate_sizes(model: Flamingo) -> dict[str, float]:
    """How far each gate is open, mean of |tanh|, by layer."""
    if model.config.gates == "none":
        return {}
    return {
        f"{name}_{layer}": getattr(inserted, f"{name}_gate").detach().tanh().abs().mean().item()
        for layer, inserted in enumerate(model.inserted)
        for name in ("attention", "feed_forward")
    }


@torch.no_grad()
def accuracy(model: Flamingo, asked: Episodes, device: str) -> float:
    """The share of episodes whose last answer is right to the last token, written greedily.

    (Greedy writing is right just where each of its tokens is the likeliest after those before it.)
    """
    right = 0
    for rows in torch.arange(len(asked.rows.tokens)).split(32):
        tokens, looks, segments = (
            part[rows].to(device) for part in (asked.rows.tokens, asked.rows.looks, asked.rows.segments)
        )
        guesses = model(tokens, model.media(asked.images(rows).to(device)), looks, segments).argmax(-1)
        for row, number in enumerate(rows.tolist()):
            first, last = asked.answers[number][-1]
            right += bool((guesses[row, first - 1 : last - 1] == tokens[row, first:last]).all())
    return right / len(asked.rows.tokens)


@torch.no_grad()
def bits_in_text(model: Flamingo, documents: Sequence[Sequence[int]], device: str) -> float:
    """Bits that plain text costs the model with all that was inserted: no token has an image to look at."""
    bits = 0.0
    for document in documents:
        tokens = torch.tensor([document], device=device)
        nothing = torch.zeros(1, 1, model.config.resampler.latents, model.config.resampler.width, device=device)
        chances = model(tokens, nothing, torch.full_like(tokens, -1))[0, :-1].double().log_softmax(-1)
        bits -= chances.gather(1, tokens[0, 1:, None]).sum().item() / torch.log(torch.tensor(2.0)).item()
    return bits
