"""Stability of training: learning rates × designs; the largest attention logit of each run, and whether it diverges.

The optimizer is AdamW with clipped gradients, as published (arXiv:2405.09818, section 2.3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import nn

from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_11_chameleon.experiment.data import Documents, training_documents
from lessons.lesson_11_chameleon.experiment.train import JOINT, DocumentLoss
from lessons.lesson_11_chameleon.model import Z_WEIGHT, BlockDesign, measure_magnitudes
from lessons.lesson_11_chameleon.model.toy_chameleon import ToyChameleon, load_image_tokenizer
from shared.course.context import RunContext
from shared.training import Batches, Evaluation, NotFinite, RunOptions, TrainingConfig, TrainingDiverged, train

SIZES = {"width": 64, "depth": 3, "heads": 4, "kv_heads": 4, "mlp_dim": 172}
EVALUATIONS = 8
"""Times per run at which the attention logits are measured."""
PROBE_ROWS = 8
"""Documents on which they are measured."""
LAST = 0.1
"""Fraction of the steps over which the final loss is averaged."""


@dataclass(frozen=True)
class Design:
    """A design of the decoder: QK-norm, the weight of the z-loss, and norms after the parts of a block."""

    qk_norm: bool = False
    z_weight: float = 0.0
    norms_after: bool = False


DESIGNS: dict[str, Design] = {
    "plain": Design(),
    "z-loss": Design(z_weight=Z_WEIGHT),
    "QK-norm": Design(qk_norm=True),
    "QK-norm, z-loss": Design(qk_norm=True, z_weight=Z_WEIGHT),
    "QK-norm, z-loss, norms after": Design(qk_norm=True, z_weight=Z_WEIGHT, norms_after=True),
}


class LargestMagnitudes:
    """Measure a decoder on the same documents whenever it is called, and store the largest finite values."""

    def __init__(self, documents: Documents):
        self.token_ids, self.segments = documents.token_ids[:PROBE_ROWS], documents.segments[:PROBE_ROWS]
        self.logit, self.log_z = 0.0, 0.0

    def __call__(self, decoder: nn.Module) -> dict[str, float]:
        magnitudes = measure_magnitudes(decoder, self.token_ids, self.segments)  # type: ignore[arg-type]
        values = {"attention_logit": float(magnitudes.attention_logits.max()), "log_z": float(magnitudes.log_z)}
        if all(map(math.isfinite, values.values())):
            self.logit, self.log_z = max(self.logit, values["attention_logit"]), max(self.log_z, values["log_z"])
        return values


def frequency_loss(documents: Documents) -> float:
    """Return the entropy in nats of the frequencies of predicted tokens: the least loss without any context."""
    counts = documents.token_ids[documents.loss_mask].bincount().double()
    probabilities = counts[counts > 0] / counts.sum()
    return float(-(probabilities * probabilities.log()).sum())


def sweep(
    context: RunContext,
    *,
    steps: int,
    documents: int = 4000,
    rates: Sequence[float] = (3e-3, 1e-2, 3e-2, 1e-1),
    designs: Sequence[str] = tuple(DESIGNS),
    sizes: Mapping[str, Any] | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Train every design at every learning rate, and return how stable each run was.

    <design>_<rate>_logit   largest attention logit of the run
    <design>_<rate>_log_z   largest |log Z| of the output logits
    <design>_<rate>_loss    final cross-entropy in nats; missing after a loss that was not finite
    <design>_logit          the largest attention logit at any learning rate
    <design>_diverged       fraction of the runs that diverged: a loss that was not finite, or a final one above the
                            entropy of the token frequencies
    frequency_loss          that entropy

    The context's data set is ignored.
    """
    tokenizer, image_tokenizer = load_language_model()[1], load_image_tokenizer()
    start = ToyChameleon.build(tokenizer, image_tokenizer, BlockDesign(), **(sizes or SIZES))
    data = training_documents(start, context.seed, documents, JOINT)
    limit = frequency_loss(data)
    measured: dict[str, Any] = {"frequency_loss": limit, "rates": list(rates), "designs": list(designs)}
    for name in designs:
        logits, diverged = [], []
        for rate in rates:
            folder = context.subfolder(f"{name} {rate:g}")
            config = stability_config(steps, rate, context.seed)
            run = folder.run_options(label=folder.folder.name)
            values = train_design(start, DESIGNS[name], data, config, run, batch_size)
            measured |= {f"{name}_{rate:g}_{key}": value for key, value in values.items()}
            logits.append(values["logit"])
            diverged.append(not values.get("loss", math.inf) < limit)
        measured |= {f"{name}_logit": max(logits), f"{name}_diverged": fmean(diverged)}
    return measured


def stability_config(steps: int, learning_rate: float, seed: int) -> TrainingConfig:
    """Return the settings of one run: AdamW, and a tenth of the steps as warm-up."""
    return TrainingConfig(
        steps,
        learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        warmup_steps=steps // 10,
        schedule="constant",
        seed=seed,
        log_every=max(1, round(LAST * steps)),
        checkpoint_every=max(100, steps),
    )


def train_design(
    start: ToyChameleon,
    design: Design,
    documents: Documents,
    config: TrainingConfig,
    run: RunOptions,
    batch_size: int,
) -> dict[str, float]:
    """Train a decoder of a design; return the final loss and the largest magnitudes, also of a run that diverged."""
    torch.manual_seed(config.seed)
    blocks = BlockDesign(qk_norm=design.qk_norm, norms_after=design.norms_after)
    sizes = {name: getattr(start.decoder.config, name) for name in SIZES}
    model = ToyChameleon.build(start.tokenizer, start.image_tokenizer, blocks, **sizes)
    largest = LargestMagnitudes(documents)
    evaluation = Evaluation(largest, every=max(1, config.steps // EVALUATIONS))
    batches = Batches(*documents, batch_size=batch_size, seed=config.seed)
    try:
        result = train(model.decoder, batches, DocumentLoss(design.z_weight), config, run=run, evaluation=evaluation)
        loss: float | None = float(result.history[-1]["cross_entropy"])
    except (NotFinite, TrainingDiverged):
        loss = None
    return {"logit": largest.logit, "log_z": largest.log_z} | ({} if loss is None else {"loss": loss})
