"""Train the judge that every lesson's generated images are scored by.

make checkpoint-judge
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from data.toybox.heldout import TEST_SEED, VERSION, sample_scenes
from data.toybox.tensors import render_tensors
from shared.course.checkpoint import Checkpoint
from shared.judge.comparison import compare_scenes
from shared.judge.model import Judge
from shared.judge.predictions import predict_scenes
from shared.judge.pretrained import NAME
from shared.judge.training import JudgeRecipe, train_judge
from shared.training import RunOptions

SCENES = 1000
OBJECTS = (1, 5)
SPLITS = {"seen": "validation", "unseen": "test"}
"""Renders that accuracy is measured on: combinations that lessons train on, and scenes with a held-out one."""


def train_and_save(folder: Path, recipe: JudgeRecipe, scenes: int = SCENES) -> dict[str, float]:
    """Train a judge, write it in float16, and return the accuracy of what was written."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as run:
        train_judge(recipe, RunOptions(folder=Path(run), label="judge")).half().save_pretrained(folder)
    judge = Judge.from_pretrained(folder)
    measured: dict[str, float] = {"parameters": sum(parameter.numel() for parameter in judge.parameters())}
    for size in (32, 64):
        for combinations, split in SPLITS.items():
            scores = measure_accuracy(judge, split, size, scenes)
            measured |= {f"{name}_{size}_{combinations}": round(value, 4) for name, value in scores.items()}
    return measured


def measure_accuracy(judge: Judge, split: str, size: int, count: int) -> dict[str, float]:
    """Return the accuracy on `count` real renders of a split's test seed, by name as in `compare_scenes`."""
    scenes = sample_scenes(split, TEST_SEED, count, OBJECTS)
    return compare_scenes(scenes, predict_scenes(judge, render_tensors(scenes, size)))


def make_checkpoint(folder: Path) -> Mapping[str, float]:
    """Train the checkpoint for `make checkpoint-judge`."""
    return train_and_save(folder, JudgeRecipe())


CHECKPOINT = Checkpoint(
    NAME,
    "The judge of generated toy-world images: it predicts the objects of an image. It is trained on rendered scenes "
    "of all combinations, the held-out ones included, and never on generated images; no model starts from it.",
    make_checkpoint,
    VERSION,
)
