"""Train the CLIP that later lessons use: the headline arm on scenes of several objects, with more steps.

make checkpoint-2
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data.toybox.heldout import VERSION
from lessons.lesson_02_clip.experiment.data import toy_tokenizer
from lessons.lesson_02_clip.experiment.train import small_clip, train_clip
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.course.context import RunContext
from shared.training import load_weights

NAME = "lesson_02_clip"
FOLDER = CHECKPOINTS_FOLDER / NAME
ARCHITECTURE = {"width": 96, "depth": 4, "position_scale": 0.5}
RECIPE = {"steps": 4000, "scenes": 60_000, "objects": (1, 4), "detail_fraction": 0.6, "learning_rate": 4e-3}


def train_and_save(folder: Path, *, architecture: dict[str, Any], recipe: dict[str, Any]) -> dict[str, float]:
    """Train, write a `CLIPModel` with its tokenizer in float32, and return the measurements."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as run:
        context = RunContext(seed=0, data="toybox", device="cpu", folder=Path(run))
        measured = train_clip(context, architecture=architecture, **recipe)
        model = load_weights(small_clip(**architecture), Path(run))
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return {name: round(value, 4) for name, value in measured.items() if not name.endswith("_curve")}


def make_checkpoint(folder: Path) -> Mapping[str, float]:
    """Train the checkpoint for `make checkpoint-2`."""
    return train_and_save(folder, architecture=ARCHITECTURE, recipe=RECIPE)


CHECKPOINT = Checkpoint(
    NAME,
    "A small CLIP of toy-world scenes with up to four objects; its image encoder is the vision encoder of lessons 3 "
    "to 5.",
    make_checkpoint,
    VERSION,
)
