"""The arms: LLaVA in two stages, and its ablations."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data.toybox.conversations import scene_setting
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_05_llava.experiment.data import (
    DataSource,
    TrainingConversations,
    description_data,
    evaluation_descriptions,
    evaluation_questions,
    question_data,
)
from lessons.lesson_05_llava.experiment.evaluate import answer_accuracy, description_scores
from lessons.lesson_05_llava.model import Llava, Projector, first_stage, loss_mask, second_stage
from shared.course.context import RunContext
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
from shared.training import Batches, LossSum, RunOptions, Stage, curve_from_history, muon_config, train

Tuning = Literal["full", "lora", "dora", "qlora"]
TUNINGS: tuple[Tuning, ...] = ("full", "lora", "dora", "qlora")
ADAPTED_LAYERS = ("language_model.blocks.*",)
FEATURE_LAYER = -2
"""The hidden state that enters the vision encoder's last block (arXiv:2304.08485, section 4.1)."""


@dataclass(frozen=True)
class Recipe:
    """The training recipe of both stages.

    scenes        training scenes per stage, at most as many as the steps can use
    objects       least and greatest number of objects per scene
    turns         questions per scene in stage 2
    batch_size    scenes per step
    first_rate    learning rate of stage 1
    second_rate   learning rate of stage 2
    use_image     False for the blind baseline
    prompt_loss   True for the ablation whose loss includes the questions
    feature_layer hidden state of the vision encoder that holds the features
    """

    scenes: int = 3000
    objects: Sequence[int] = (1, 3)
    turns: int = 3
    batch_size: int = 12
    first_rate: float = 1e-2
    second_rate: float = 2e-3
    use_image: bool = True
    prompt_loss: bool = False
    feature_layer: int = FEATURE_LAYER


def train_llava(
    context: RunContext,
    *,
    first_steps: int,
    second_steps: int,
    tuning: Tuning = "full",
    rank: int = 8,
    held_out: int = 480,
    **recipe_values,
) -> dict:
    """Train both stages and evaluate on held-out combinations.

    first_steps    steps of stage 1; 0 leaves the stage out
    tuning         how stage 2 trains the language model: all weights, or adapters of a rank
    held_out       number of evaluation questions per split
    recipe_values  fields of `Recipe`

    The context's data set is ignored: both frozen models were trained on the toy world.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    model, tokenizer = untrained_llava(context.device, recipe.feature_layer)
    digest = weights_digest(model.vision_encoder)
    source = data_source(model, tokenizer, recipe, context)
    measured: dict = {}
    if first_steps:
        measured["first_loss_curve"] = train_stage(source, first_stage(first_steps), recipe, context, "stage-1")
    prepare_tuning(model, tuning, rank)
    measured["loss_curve"] = train_stage(source, second_stage(second_steps, model), recipe, context, "stage-2")
    for name, split in (("answers", "test"), ("seen", "validation")):
        questions = evaluation_questions(source, split, TEST_SEED, held_out)
        measured |= answer_accuracy(model, tokenizer, questions, context.device, name)
    descriptions = evaluation_descriptions(source, "test", TEST_SEED, held_out // 6)
    measured |= description_scores(model, tokenizer, descriptions, context.device)
    measured["objects"] = list(source.setting.objects)
    changed = float(weights_digest(model.vision_encoder) != digest)
    return measured | training_costs(model) | {"frozen_changed": changed}


def train_lengths(
    context: RunContext, *, first_steps: int, lengths: Sequence[int], held_out: int = 480, **recipe_values
) -> dict:
    """Train one stage 1, or none, and from its end stage 2 with several numbers of steps."""
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    start, tokenizer = untrained_llava(context.device, recipe.feature_layer)
    source = data_source(start, tokenizer, recipe, context)
    if first_steps:
        train_stage(source, first_stage(first_steps), recipe, context, "stage-1")
    questions = evaluation_questions(source, "test", TEST_SEED, held_out)
    measured: dict = {}
    for steps in lengths:
        model = copy.deepcopy(start)
        source = data_source(model, tokenizer, recipe, context)
        train_stage(source, second_stage(steps, model), recipe, context, f"stage-2-{steps}")
        accuracy = answer_accuracy(model, tokenizer, questions, context.device, "answers")
        measured[f"answers_{steps}"] = accuracy["answers"]
    accuracies = [measured[f"answers_{steps}"] for steps in lengths]
    ends = {"answers_shortest": accuracies[0], "answers_longest": accuracies[-1]}
    return measured | ends | {"answers_curve": [list(lengths), accuracies]}


def untrained_llava(device: str, feature_layer: int = FEATURE_LAYER) -> tuple[Llava, Tokenizer]:
    """Connect lesson 2's vision encoder and lesson 0's language model by a new projector; return the tokenizer too."""
    vision_encoder = load_vision_encoder()
    language_model, tokenizer = load_language_model()
    model = Llava(
        vision_encoder,
        Projector(vision_encoder.config.width, language_model.config.width),
        language_model,
        image_token_id=tokenizer.special_tokens[IMAGE_TOKEN],
        feature_layers=(feature_layer,),
    )
    return model.to(device), tokenizer


def data_source(model: Llava, tokenizer: Tokenizer, recipe: Recipe, context: RunContext) -> DataSource:
    """Return the source of a recipe's data for a model."""
    return DataSource(model, tokenizer, scene_setting(recipe.objects), recipe.use_image, context.device)


def train_stage(source: DataSource, stage: Stage, recipe: Recipe, context: RunContext, name: str) -> list:
    """Train one stage and return its loss curve: stage 1 on descriptions, stage 2 on questions."""
    model, is_first = source.model, stage == first_stage(stage.steps)
    count = min(recipe.scenes, stage.steps * recipe.batch_size)  # no more than the steps use
    if is_first:
        conversations = description_data(source, context.seed, count)
    else:
        conversations = question_data(source, context.seed, count, recipe.turns)
    folder: Path = context.folder / name
    result = train(
        model,
        training_batches(model, conversations, recipe, context.seed),
        llava_loss,
        muon_config(
            stage.steps,
            recipe.first_rate if is_first else recipe.second_rate,
            seed=context.seed,
            checkpoint_every=max(100, stage.steps // 4),
        ),
        run=RunOptions(
            folder=folder,
            resume=context.resume,
            device=context.device,
            label=f"{folder.parent.name}, {folder.name}",
        ),
        stages=(stage,),
    )
    return curve_from_history(result.history, "loss")


def training_batches(model: Llava, conversations: TrainingConversations, recipe: Recipe, seed: int) -> Batches:
    """Return batches of features, token ids, loss masks and segments."""
    mask = loss_mask(
        conversations.token_ids,
        conversations.answer_mask,
        conversations.segments,
        image_token_id=model.image_token_id,
        prompts=recipe.prompt_loss,
    )
    return Batches(
        conversations.features,
        conversations.token_ids,
        mask,
        conversations.segments,
        batch_size=recipe.batch_size,
        seed=seed,
    )


def llava_loss(model: Llava, batch: tuple[Tensor, ...]) -> LossSum:
    """Return the cross-entropy of the token ids in the loss mask; columns of padding only are cut off."""
    features, token_ids, mask, segments = batch
    longest = int((segments >= 0).any(dim=0).sum())
    token_ids, mask = token_ids[:, :longest], mask[:, :longest]
    # Padding is at the ends, where causal attention hides it: segments are not needed.
    return sft_loss(model.logits(token_ids, features), token_ids, mask)


def prepare_tuning(model: Llava, tuning: Tuning, rank: int) -> None:
    """Quantize and adapt the language model for stage 2. Raises ValueError for an unknown tuning."""
    if tuning not in TUNINGS:
        raise ValueError(f"no tuning {tuning!r}: choose one of {', '.join(TUNINGS)}")
    if tuning == "qlora":
        quantize_linears(model, NF4Linear, ADAPTED_LAYERS)
    if tuning != "full":
        add_adapters(model, AdapterConfig(ADAPTED_LAYERS, rank=rank, alpha=2.0 * rank, dora=tuning == "dora"))


def training_costs(model: Llava) -> dict[str, float]:
    """Return the bytes that stage 2 holds for the language model besides activations, and its trainable fraction."""
    trainable = second_stage(1, model).trainable
    language_model = copy.deepcopy(model.language_model)
    for name, parameter in language_model.named_parameters():
        parameter.requires_grad_("language_model.*" in trainable or f"language_model.{name}" in trainable)
    held = training_bytes(language_model, moments=1)
    return {
        "trainable_fraction": trainable_fraction(language_model),
        "weight_bytes": held.weights,
        "gradient_bytes": held.gradients,
        "moment_bytes": held.moments,
    }
