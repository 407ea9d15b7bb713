"""The arms: LLaVA in two stages, and what is left when an image, a stage, the answers' mask or most of the weights are taken away."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lessons.lesson_02_clip.arms.pairs import TEST_SEED
from lessons.lesson_03_blip2.arms import frozen
from lessons.lesson_05_llava.arms import conversations, measure
from lessons.lesson_05_llava.arms.conversations import Conversations
from lessons.lesson_05_llava.model import IMAGE, Llava, Projector, first_stage, learned, second_stage
from shared.finetuning import (
    AdapterConfig,
    NF4Linear,
    add_adapters,
    answer_loss,
    quantise_linears,
    share_that_learns,
    training_bytes,
)
from shared.tokenizers import ChatTemplate
from shared.training import Batches, Stage, TrainingConfig, curve_from_history, train

Tuning = Literal["full", "lora", "dora", "qlora", "projector"]
LINEARS = ("language.blocks.*",)


def train_llava(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    first_steps: int,
    second_steps: int,
    image: bool = True,
    prompts: bool = False,
    tuning: Tuning = "full",
    scenes: int = 3000,
    things: tuple[int, int] | list[int] = (1, 3),
    turns: int = 5,
    batch_size: int = 8,
    first_rate: float = 1e-2,
    second_rate: float = 1e-2,
    rank: int = 8,
    held_out: int = 480,
) -> dict:
    """Train on descriptions, then on questions; measure on held-out combinations.

    first_steps  of the projector alone, on descriptions; 0 leaves the stage out
    image        False: the blind baseline, which reads and never sees
    prompts      the ablation: the loss asks for the questions as well as the answers
    tuning       what of the language model learns in the second stage
    (data is not used: the toy world is what the eye and the language model have seen)
    """
    torch.manual_seed(seed)
    eye = frozen.load_eye()
    language, tokenizer = frozen.load_language()
    template, things = ChatTemplate(tokenizer), tuple(things)
    model = Llava(
        eye, Projector(eye.config.width, language.config.width), language, image_token=tokenizer.specials[IMAGE],
        class_token=True,
    ).to(device)  # fmt: skip
    before = frozen.digest(eye)
    shared = {"seed": seed, "device": device, "resume": resume, "batch_size": batch_size, "prompts": prompts}
    measured: dict = {}
    if first_steps:
        pairs = conversations.described(eye, template, seed, scenes, things, image=image, device=device)
        stage = first_stage(first_steps)
        measured["first_loss_curve"] = learn(model, pairs, stage, folder=folder / "stage-1", rate=first_rate, **shared)
    adapt(model, tuning, rank)
    stage = Stage(second_steps, ("projector.*",)) if tuning == "projector" else second_stage(second_steps, model)
    interviews = conversations.interviewed(eye, template, seed, scenes, turns, things, image=image, device=device)
    measured["loss_curve"] = learn(model, interviews, stage, folder=folder / "stage-2", rate=second_rate, **shared)
    about = {"things": things, "image": image, "device": device}
    for name, split in (("answers", "test"), ("seen", "validation")):
        questions = conversations.asked(eye, template, split, TEST_SEED, held_out, **about)
        measured |= measure.answer_accuracy(model, template, questions, device, name)
    scenes_to_describe = conversations.to_be_described(eye, template, "test", TEST_SEED, held_out // 6, **about)
    measured |= measure.description_scores(model, template, scenes_to_describe, device)
    return measured | costs(model, stage) | {"frozen_changed": float(frozen.digest(eye) != before)}


def learn(
    model: Llava, pairs: Conversations, stage: Stage, *, folder: Path, rate: float, seed: int, device: str, resume: bool,
    batch_size: int, prompts: bool,
) -> list:  # fmt: skip
    """One stage; return the loss by steps."""
    wanted = learned(pairs.tokens, pairs.answers, pairs.segments, image_token=model.image_token, prompts=prompts)
    batches = Batches(pairs.features, pairs.tokens, wanted, pairs.segments, batch_size=batch_size, seed=seed)
    result = train(
        model, batches, loss_of, training_config(stage.steps, rate, seed), folder=folder, resume=resume, device=device,
        stages=(stage,), label=f"{folder.parent.name}, {folder.name}",
    )  # fmt: skip
    return curve_from_history(result.history, "loss")


def loss_of(model: Llava, batch: tuple[Tensor, ...]) -> Tensor:
    """The surprise at what is to be learned; columns that are padding in every row are left out."""
    features, tokens, wanted, segments = batch
    longest = int((segments >= 0).any(dim=0).sum())
    tokens, wanted, segments = (part[:, :longest] for part in (tokens, wanted, segments))
    return answer_loss(model.logits(tokens, features, segments), tokens, wanted)


def training_config(steps: int, rate: float, seed: int) -> TrainingConfig:
    """How either stage is trained: with Muon, as lesson 3's bridges are, and for their reasons."""
    return TrainingConfig(
        steps=steps, learning_rate=rate, optimizer="muon", betas=(0.9, 0.95), warmup_steps=steps // 10, seed=seed,
        log_every=max(1, steps // 40), checkpoint_every=max(100, steps // 4),
    )  # fmt: skip


def adapt(model: nn.Module, tuning: Tuning, rank: int) -> None:
    """Prepare the language model for its second stage. Raises ValueError for a way of tuning that there is not."""
    if tuning not in ("full", "lora", "dora", "qlora", "projector"):
        raise ValueError(f"no tuning {tuning!r}: choose full, lora, dora, qlora or projector")
    if tuning == "qlora":
        quantise_linears(model, NF4Linear, LINEARS)
    if tuning in ("lora", "dora", "qlora"):
        add_adapters(model, AdapterConfig(LINEARS, rank=rank, alpha=2.0 * rank, dora=tuning == "dora"))


def costs(model: nn.Module, stage: Stage) -> dict[str, float]:
    """What the second stage holds in memory besides activations, and which share of all numbers learns."""
    from shared.training.stages import enter_stage

    enter_stage(model, stage)
    held = training_bytes(model, moments=1)
    return {
        "share_that_learns": share_that_learns(model),
        "weight_bytes": held.weights,
        "gradient_bytes": held.gradients,
        "moment_bytes": held.moments,
    }
