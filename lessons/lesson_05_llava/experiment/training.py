"""The arms: LLaVA in two stages, and what is left when an image, a stage, the answers' mask or most of the weights are taken away."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_05_llava.experiment import conversations, measure
from lessons.lesson_05_llava.experiment.conversations import Conversations
from lessons.lesson_05_llava.model import Llava, Projector, first_stage, loss_mask, second_stage
from shared.finetuning import (
    AdapterConfig,
    NF4Linear,
    add_adapters,
    quantize_linears,
    sft_loss,
    trainable_fraction,
    training_bytes,
)
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import IMAGE_TOKEN
from shared.training import Batches, RunOptions, Stage, TrainingConfig, curve_from_history, train

Tuning = Literal["full", "lora", "dora", "qlora"]
TUNINGS = ("full", "lora", "dora", "qlora")
LINEARS = ("language_model.blocks.*",)
LAYERS = (0, -2)
"""Which of the eye's states the language model is shown. Before its last block this eye knows what a thing is, and has half
forgotten where: a patch's place is read from what went into its first block."""
SCALES = (4.0, 1.0)
"""What goes into the first block is about four times smaller (1.1 to 4.3, root mean square), and at that size it is learned
late: an arm of the experiment leaves the four out, and is behind in places."""
OBJECTS = (1, 3)


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
    held_out: int = 480,
    rank: int = 8,
    scales: Sequence[float] = SCALES,
    **sizes: object,
) -> dict:
    """Train on descriptions, then on questions; measure on held-out combinations.

    first_steps  of the projector alone, on descriptions; 0 leaves the stage out
    image        False: the blind baseline, which reads and never sees
    prompts      the ablation: the loss asks for the questions as well as the answers
    tuning       what of the language model learns in the second stage: all, or adapters of a rank
    scales       what each of the eye's states is multiplied by
    sizes        as `learn` has them
    (data is not used: the toy world is what the eye and the language model have seen)
    """
    torch.manual_seed(seed)
    model, tokenizer = new_llava(device, scales)
    before = weights_digest(model.vision_encoder)
    about = {"seed": seed, "device": device, "resume": resume, "image": image, "prompts": prompts, **sizes}
    measured: dict = {}
    if first_steps:
        stage = first_stage(first_steps)
        measured["first_loss_curve"] = learn(model, tokenizer, stage, folder=folder / "stage-1", **about)
    adapt(model, tuning, rank)
    stage = second_stage(second_steps, model)
    measured["loss_curve"] = learn(model, tokenizer, stage, folder=folder / "stage-2", **about)
    world = conversations.world_of(sizes.get("objects", OBJECTS))
    for name, split in (("answers", "test"), ("seen", "validation")):
        asked = conversations.asked(model, tokenizer, split, TEST_SEED, held_out, world, image=image, device=device)
        measured |= measure.answer_accuracy(model, tokenizer, asked, device, name)
    asked = conversations.to_be_described(
        model, tokenizer, "test", TEST_SEED, held_out // 6, world, image=image, device=device
    )
    measured |= measure.description_scores(model, tokenizer, asked, device)
    measured["objects"] = list(world.objects)
    return measured | costs(model) | {"frozen_changed": float(weights_digest(model.vision_encoder) != before)}


def train_lengths(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, first_steps: int, lengths: Sequence[int],
    held_out: int = 480, **sizes: object,
) -> dict:  # fmt: skip
    """One first stage, or none, and second stages of several lengths that each begin where it has ended."""
    torch.manual_seed(seed)
    begun, tokenizer = new_llava(device)
    about = {"seed": seed, "device": device, "resume": resume, "image": True, "prompts": False, **sizes}
    if first_steps:
        learn(begun, tokenizer, first_stage(first_steps), folder=folder / "stage-1", **about)
    world = conversations.world_of(sizes.get("objects", OBJECTS))
    asked = conversations.asked(begun, tokenizer, "test", TEST_SEED, held_out, world, image=True, device=device)
    measured: dict = {}
    for steps in lengths:
        model = copy.deepcopy(begun)
        learn(model, tokenizer, second_stage(steps, model), folder=folder / f"stage-2-{steps}", **about)
        right = measure.answer_accuracy(model, tokenizer, asked, device, "answers")
        measured[f"answers_{steps}"] = right["answers"]
    return measured | {"answers_curve": [list(lengths), [measured[f"answers_{steps}"] for steps in lengths]]}


def new_llava(device: str, scales: Sequence[float] = SCALES) -> tuple[Llava, Tokenizer]:
    """Lesson 2's eye, lesson 0's language model, a fresh projector between them; and the words' numbers."""
    eye = load_vision_encoder()
    language, tokenizer = load_language_model()
    projector = Projector(eye.config.width * len(LAYERS), language.config.width, scales=scales)
    # The class token is kept: in an eye this small it knows of shapes what no patch knows.
    model = Llava(
        eye,
        projector,
        language,
        image_token_id=tokenizer.special_tokens[IMAGE_TOKEN],
        feature_layers=LAYERS,
        keep_class_token=True,
    )
    return model.to(device), tokenizer


def learn(
    model: Llava,
    tokenizer: Tokenizer,
    stage: Stage,
    *,
    folder: Path,
    seed: int,
    device: str,
    resume: bool,
    image: bool,
    prompts: bool,
    scenes: int = 3000,
    objects: Sequence[int] = OBJECTS,
    turns: int = 3,
    batch_size: int = 12,
    first_rate: float = 1e-2,
    second_rate: float = 2e-3,
) -> list:
    """One stage, on descriptions when the projector learns alone and on questions when the language model learns too; return
    the loss by steps.

    scenes      to learn from, each of as few and as many `things`
    turns       questions about a scene
    batch_size  scenes a step
    """
    alone, world = stage == first_stage(stage.steps), conversations.world_of(objects)
    scenes = min(scenes, stage.steps * batch_size)  # no more than it comes to see
    pairs = (
        conversations.described(model, tokenizer, seed, scenes, world, image=image, device=device)
        if alone
        else conversations.interviewed(model, tokenizer, seed, scenes, turns, world, image=image, device=device)
    )
    result = train(
        model,
        batches_of(model, pairs, batch_size=batch_size, seed=seed, prompts=prompts),
        loss_of,
        training_config(stage.steps, first_rate if alone else second_rate, seed),
        run=RunOptions(folder=folder, resume=resume, device=device, label=f"{folder.parent.name}, {folder.name}"),
        stages=(stage,),
    )
    return curve_from_history(result.history, "loss")


def batches_of(model: Llava, pairs: Conversations, *, batch_size: int, seed: int, prompts: bool) -> Batches:
    """Features, tokens, which of them are learned, and which of them are there."""
    wanted = loss_mask(
        pairs.tokens, pairs.answers, pairs.segments, image_token_id=model.image_token_id, prompts=prompts
    )
    return Batches(pairs.features, pairs.tokens, wanted, pairs.segments, batch_size=batch_size, seed=seed)


def loss_of(model: Llava, batch: tuple[Tensor, ...]) -> Tensor:
    """The surprise at what is to be learned; columns that are padding in every row are left out."""
    features, tokens, wanted, segments = batch
    longest = int((segments >= 0).any(dim=0).sum())
    tokens, wanted = tokens[:, :longest], wanted[:, :longest]
    # Padding stands at the ends, and nobody looks forward: it needs no segments.
    return sft_loss(model.logits(tokens, features), tokens, wanted)


def training_config(steps: int, rate: float, seed: int) -> TrainingConfig:
    """How either stage is trained: with Muon, as lesson 3's bridges are, and for their reasons."""
    return TrainingConfig(
        steps=steps, learning_rate=rate, optimizer="muon", betas=(0.9, 0.95), warmup_steps=steps // 10, seed=seed,
        log_every=max(1, steps // 40), checkpoint_every=max(100, steps // 4),
    )  # fmt: skip


def adapt(model: Llava, tuning: Tuning, rank: int) -> None:
    """Prepare the language model for its second stage. Raises ValueError for a way of tuning that there is not."""
    if tuning not in TUNINGS:
        raise ValueError(f"no tuning {tuning!r}: choose one of {', '.join(TUNINGS)}")
    if tuning == "qlora":
        quantize_linears(model, NF4Linear, LINEARS)
    if tuning != "full":
        add_adapters(model, AdapterConfig(LINEARS, rank=rank, alpha=2.0 * rank, dora=tuning == "dora"))


def costs(model: Llava) -> dict[str, float]:
    """What the second stage holds of the language model besides activations, and which share of its numbers learns."""
    patterns, language = second_stage(1, model).trainable, copy.deepcopy(model.language_model)
    for name, parameter in language.named_parameters():
        parameter.requires_grad_("language_model.*" in patterns or f"language_model.{name}" in patterns)
    held = training_bytes(language, moments=1)
    return {
        "trainable_fraction": trainable_fraction(language),
        "weight_bytes": held.weights,
        "gradient_bytes": held.gradients,
        "moment_bytes": held.moments,
    }
