"""A small run with dropout, augmentation and noise in its evaluation, for several test modules."""

import random

import numpy as np
import torch
from torch import nn

from shared.training import (
    Batches,
    Evaluation,
    RunOptions,
    TrainingConfig,
    train,
)

INPUTS = torch.randn(96, 5, generator=torch.Generator().manual_seed(1))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.Linear(8, 1))


def loss(model, batch):
    error = (model(batch) - batch.sum(-1, keepdim=True)).square().mean()
    return error, {"root": error.detach().sqrt()}


def augment(batch, generator):
    return batch + 0.1 * torch.randn(batch.shape, generator=generator)


def batches() -> Batches:
    return Batches(INPUTS, batch_size=8, seed=2, augment=augment)


def evaluate(model):
    # An evaluation may draw random numbers without changing the training.
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    return {"error": (model(INPUTS) - INPUTS.sum(-1, keepdim=True)).square().mean().item()}


def config(**changes) -> TrainingConfig:
    settings = {"steps": 24, "learning_rate": 1e-2, "accumulate": 2, "ema_decay": 0.9, "warmup_steps": 3}
    return TrainingConfig(**(settings | {"log_every": 5, "checkpoint_every": 8} | changes))


def run(folder=None, loss=loss, resume=False, settings=None, evaluate_every=6, tokens_per_step=None):
    return train(
        network(),
        batches(),
        loss,
        settings or config(),
        run=RunOptions(folder=folder, resume=resume, tokens_per_step=tokens_per_step),
        evaluation=Evaluation(evaluate, every=evaluate_every),
    )
