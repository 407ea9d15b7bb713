"""The settings of a training run: what determines the weights, where the run is stored, and how it is evaluated."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from shared.options import MAX_SEED
from shared.training.schedules import SCHEDULES


@dataclass(frozen=True)
class TrainingConfig:
    """Describe how to train, apart from the model, the data and the loss.

    steps              optimizer steps, each on the gradients of `accumulate` batches
    learning_rate      the schedule's peak
    betas              Adam's two; the first one is also SGD's momentum
    clip_norm          upper bound of the gradient norm; None is no bound
    ema_decay          decay of an averaged model that is kept besides; None keeps none
    parallel           how several processes divide the work (see parallel.py); without torchrun it has no effect
    recompute          recompute blocks' activations in the backward pass: less memory, more time
    divergence_factor  stop when the loss stays above this many times the highest before (see watchdog.py); None: never
    seed               of dropout and other randomness in training, not of the data's order

    Raises ValueError for invalid values.
    """

    steps: int
    learning_rate: float
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup_steps: int = 0
    clip_norm: float | None = 1.0
    accumulate: int = 1
    ema_decay: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    recompute: bool = False
    divergence_factor: float | None = 10.0
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number, 0 or more")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}; it must be between 0 and {MAX_SEED}")
        choices = {
            "optimizer": ("adamw", "muon", "sgd"),
            "schedule": tuple(SCHEDULES),
            "precision": ("float32", "bfloat16"),
            "parallel": ("ddp", "fsdp"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; it must be between 0 and steps = {self.steps}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")
        if self.divergence_factor is not None and not self.divergence_factor > 1:
            raise ValueError(f"divergence_factor is {self.divergence_factor}; it must be above 1, or None")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of step number `step`, counted from 0."""
        return self.learning_rate * SCHEDULES[self.schedule](step, self.steps, self.warmup_steps)


def muon_config(
    steps: int,
    learning_rate: float,
    *,
    seed: int,
    log_lines: int = 40,
    betas: tuple[float, float] = (0.9, 0.95),
    **other_settings: Any,
) -> TrainingConfig:
    """Return the settings of most small models of the course: Muon, and a tenth of the steps as warm-up.

    log_lines       the loss is logged this many times over the run
    other_settings  further fields of `TrainingConfig`

    Raises ValueError for invalid values.
    """
    return TrainingConfig(
        steps,
        learning_rate,
        optimizer="muon",
        betas=betas,
        warmup_steps=steps // 10,
        seed=seed,
        log_every=max(1, steps // log_lines),
        **other_settings,
    )


@dataclass(frozen=True)
class RunOptions:
    """Describe where a run is stored and how it is displayed. On the same device none of this changes a weight.

    folder           of checkpoints and log; None writes nothing
    resume           whether to continue from the newest checkpoint in `folder`
    device           of model and batches, such as "cpu" or "cuda"
    label            name of the run in the progress display
    tokens_per_step  to display tokens per second instead of samples per second
    tracker          "wandb" sends the metrics to Weights & Biases, too (see trackers.py); it needs a folder
    """

    folder: Path | None = None
    resume: bool = False
    device: str | torch.device = "cpu"
    label: str = ""
    tokens_per_step: int | None = None
    tracker: Literal["wandb"] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Measure a model while it trains.

    function  `function(model)` returns named numbers
    every     steps between two calls; None calls it only after the last step
    """

    function: Callable[[nn.Module], dict[str, float]]
    every: int | None = None
