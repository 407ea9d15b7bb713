"""Train the CLIP that later lessons use: scenes of one to five objects, a captioning loss beside the contrastive one.

make checkpoint-2
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data.toybox.heldout import VERSION
from lessons.lesson_02_clip.experiment.data import toy_tokenizer
from lessons.lesson_02_clip.experiment.train import small_clip, small_decoder, train_clip
from lessons.lesson_02_clip.model.caption_decoder import CaptioningCLIP
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.course.context import RunContext
from shared.devices import fastest_precision
from shared.training import load_weights

NAME = "lesson_02_clip"
FOLDER = CHECKPOINTS_FOLDER / NAME
ARCHITECTURE = {"width": 96, "depth": 6, "position_scale": 0.5}
RECIPE = {
    "steps": 4500,
    "scenes": 100_000,
    "objects": (1, 5),
    "detail_fraction": 0.6,
    "learning_rate": 4e-3,
    "regions": 6,
}


def train_and_save(folder: Path, *, architecture: dict[str, Any], recipe: dict[str, Any]) -> dict[str, float]:
    """Train, write a `CLIPModel` with its tokenizer in float32, and return the measurements."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as run:
        context = RunContext(seed=0, data="toybox", device="cpu", folder=Path(run))
        measured = train_clip(context, architecture=architecture, precision=fastest_precision(), **recipe)
        model = small_clip(**architecture)
        if recipe.get("regions"):
            model = load_weights(CaptioningCLIP(model, small_decoder(model)), Path(run)).clip
        else:
            model = load_weights(model, Path(run))
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return {name: round(value, 4) for name, value in measured.items() if not name.endswith("_curve")}


def make_checkpoint(folder: Path) -> Mapping[str, float]:
    """Train the checkpoint for `make checkpoint-2`."""
    return train_and_save(folder, architecture=ARCHITECTURE, recipe=RECIPE)


CHECKPOINT = Checkpoint(
    NAME,
    "A small CLIP of toy-world scenes with up to five objects, trained with a captioning loss too; its image "
    "encoder is the vision encoder of later lessons.",
    make_checkpoint,
    VERSION,
)
