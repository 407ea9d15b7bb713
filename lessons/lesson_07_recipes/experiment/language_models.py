"""The language-model axis on text alone: decoders of equal active size, their caches, and contexts beyond training."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from data.toybox.documents import INTERVIEW_MIXTURE
from data.toybox.documents import documents as toy_documents
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.evaluation import encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.experts import recorded_routings
from lessons.lesson_07_recipes.model.experts_arms import ArmSizes, build_arm, count_parameters, loss_and_loads
from lessons.lesson_07_recipes.model.experts_balance import expert_loads, max_violation, update_biases
from lessons.lesson_07_recipes.model.latent_attention_cache import cache_bytes_per_token, measured_cache_bytes
from lessons.lesson_07_recipes.model.long_context import (
    cross_entropy_by_length,
    cross_entropy_by_position,
    published_scalings,
    with_rotary_scaling,
)
from shared.course.context import RunContext
from shared.training import Batches, curve_from_history, muon_config, train

LENGTH = 64
"""Tokens per training window; no model is trained on a longer context."""
FACTOR = 4
"""Contexts are evaluated up to this many times the trained length."""
BIAS_SPEED = 0.01
"""Of a DeepSeek-V3's biases: ten times the paper's, for hundreds of steps instead of many thousands."""
TEXT_SEED = 1_000
LEARNING_RATE = 5e-3


def token_windows(split: str, seed: int, count: int, length: int) -> Int[Tensor, "rows length"]:
    """Return a split's first `count` documents as one text, cut into windows; a window may hold several documents."""
    _, tokenizer = load_language_model()
    texts = toy_documents(split, seed, count, mixture=INTERVIEW_MIXTURE)
    token_ids = torch.tensor([token_id for row in encode_documents(tokenizer, texts) for token_id in row])
    return token_ids[: len(token_ids) // length * length].view(-1, length)


@dataclass(frozen=True)
class TextSettings:
    """The settings of one decoder that is trained on text.

    arm             a name of `experts_arms`
    tuning_steps    steps of training on windows of four times the length, with YaRN and without; 0 for none
    documents       number of training documents
    held_out        number of new documents
    balance_weight  weight of the experts' balance loss; None for the published weight of the model's kind
    """

    arm: str
    steps: int
    tuning_steps: int = 0
    documents: int = 4000
    held_out: int = 200
    batch_size: int = 16
    balance_weight: float | None = 0.01


def train_language_model(context: RunContext, **values: Any) -> dict[str, Any]:
    """Train one decoder of `experts_arms` on text and measure it on new text.

    values  fields of `TextSettings`
    """
    settings = TextSettings(**values)
    torch.manual_seed(context.seed)
    _, tokenizer = load_language_model()
    model = build_arm(settings.arm, ArmSizes(tokenizer.vocab_size)).to(context.device)
    windows = token_windows("train", context.seed, settings.documents, LENGTH)
    curve = train_on_windows(context, model, windows, settings.steps, settings.batch_size, settings.balance_weight)
    new_windows = token_windows("validation", TEXT_SEED, settings.held_out, LENGTH)
    counts = count_parameters(model)
    measured: dict[str, Any] = {
        "loss": cross_entropy_by_position(model.eval(), new_windows).mean().item(),
        "loss_curve": curve,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "cache_bytes": cache_bytes_per_token(model.config, torch.float32),
        "measured_cache_bytes": cached_bytes(model, new_windows[:2]),
    }
    if settings.arm.startswith("sparse"):
        measured |= expert_use(model, new_windows)
    if settings.arm == "dense":
        measured |= long_contexts(context, model, settings)
    return measured


def train_on_windows(
    context: RunContext,
    model: LanguageModel,
    windows: Int[Tensor, "rows tokens"],
    steps: int,
    batch_size: int,
    balance_weight: float | None,
) -> tuple[list[int], list[float]]:
    """Train on windows of text and return the loss curve; a DeepSeek-V3's biases are updated at every step."""

    def loss(model: LanguageModel, token_ids: Int[Tensor, "batch tokens"]):
        value, loads = loss_and_loads(model, token_ids, torch.zeros_like(token_ids), balance_weight=balance_weight)
        if isinstance(model, DeepSeekV3) and loads is not None:
            # The choice of the experts of this step is made; the new biases count from the next one.
            update_biases(model, loads, BIAS_SPEED)
        return value

    result = train(
        model,
        Batches(windows, batch_size=batch_size, seed=context.seed),
        loss,
        muon_config(steps, LEARNING_RATE, seed=context.seed, checkpoint_every=max(100, steps // 4)),
        run=context.run_options(),
    )
    return curve_from_history(result.history, "loss")


@torch.no_grad()
def cached_bytes(model: LanguageModel, token_ids: Int[Tensor, "rows tokens"]) -> float:
    """Return the bytes per token that the tensors of the cache occupy after a forward pass of some rows."""
    rows, tokens = token_ids.shape
    device = model.norm.weight.device
    cache = model.new_cache(rows, tokens)
    model.hidden_states(token_ids.to(device), cache=cache)
    return measured_cache_bytes(cache, model.config.depth) / (rows * tokens)


@torch.no_grad()
def expert_use(model: LanguageModel, windows: Int[Tensor, "rows tokens"]) -> dict[str, Any]:
    """Return how unequally the experts are chosen: the mean over layers of `max_violation`, and each layer's loads."""
    with recorded_routings(model) as routings:
        model(windows.to(model.norm.weight.device))
    loads = expert_loads(routings)
    return {"max_violation": max_violation(loads).mean().item(), "loads": loads.tolist()}


def long_contexts(context: RunContext, model: LanguageModel, settings: TextSettings) -> dict[str, Any]:
    """Return the cross-entropy at 1 to 4 times the trained length under every published scaling.

    With tuning steps, the model is also trained on as many batches of long windows: once with YaRN, and once with
    its rotary positions as they are.
    """
    windows = token_windows("validation", TEXT_SEED, 2 * settings.held_out, FACTOR * LENGTH)
    scalings = published_scalings(float(FACTOR), LENGTH)
    losses = cross_entropy_by_length(model, windows, LENGTH, scalings)
    if settings.tuning_steps:
        long_windows = token_windows("train", context.seed, settings.documents, FACTOR * LENGTH)
        for name in ("none", "YaRN"):
            tuned = with_rotary_scaling(copy.deepcopy(model), scalings[name])
            train_on_windows(
                context.subfolder(f"tuned-{name}"), tuned.train(), long_windows, settings.tuning_steps, 4, 0.0
            )
            own = {f"{name}, tuned": scalings[name]}
            losses |= cross_entropy_by_length(tuned.eval(), windows, LENGTH, own)
    return {f"length_{name}": values for name, values in losses.items()}
