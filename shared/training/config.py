"""The settings of a training run: what decides the weights, where the run lives, and how it is evaluated."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from shared.training.schedules import SCHEDULES


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: everything but the model, the data and the loss.

    `steps` are updates of the weights, each from `accumulate` batches. `learning_rate` is the schedule's peak.
    `betas[0]` is also SGD's momentum. `clip_norm` bounds the gradient's norm (None: no bound).
    With `ema_decay` an averaged model is kept beside. `seed` governs dropout and the like, not the data's order.
    `parallel` says how several processes share the work (see parallel.py); without torchrun it has no effect.
    `explosion_factor`: the run stops when the loss stays beyond so many times the highest before (see explosion.py).
    `recompute` trades a second forward pass of every block for the memory of what happens inside it.
    Raises ValueError on values that can't be meant.
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
    explosion_factor: float | None = 10.0
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100

    def __post_init__(self):
        for name in ("steps", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        choices = {
            "optimizer": ("adamw", "muon", "sgd"),
            "schedule": tuple(SCHEDULES),
            "precision": ("float32", "bfloat16"),
            "parallel": ("ddp", "fsdp"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; it must lie between 0 and steps = {self.steps}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if self.explosion_factor is not None and not self.explosion_factor > 1:
            raise ValueError(f"explosion_factor is {self.explosion_factor}; it must be above 1, or None")

    def learning_rate_at(self, step: int) -> float:
        return self.learning_rate * SCHEDULES[self.schedule](step, self.steps, self.warmup_steps)


@dataclass(frozen=True)
class RunOptions:
    """Describe where a run lives and how it is shown. Nothing in here changes a weight on the same device.

    folder           for checkpoints and the log; None writes nothing
    resume           whether to continue from the newest checkpoint in `folder`
    device           of the model and the batches, such as "cpu" or "cuda"
    label            name of the run in the progress display
    tokens_per_step  to show tokens per second instead of samples per second
    """

    folder: Path | None = None
    resume: bool = False
    device: str | torch.device = "cpu"
    label: str = ""
    tokens_per_step: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """Call `function(model)` every `every` steps and after the last one (None: only then); it returns named numbers."""

    function: Callable[[nn.Module], dict[str, float]]
    every: int | None = None
