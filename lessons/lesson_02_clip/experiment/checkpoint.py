"""The two towers that later lessons see and read with: the headline arm on scenes of several things, trained for longer.

make checkpoint-2
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from data.toybox.heldout import VERSION
from lessons.lesson_02_clip.experiment.contrast import small_model, train_pairs
from lessons.lesson_02_clip.experiment.pairs import toy_tokenizer
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.training import load_weights

NAME = "lesson_02_clip"
FOLDER = CHECKPOINTS_FOLDER / NAME
SIZES = {"width": 96, "depth": 4, "waves": 0.5}
LENGTH_OF_TRAINING = {"steps": 4000, "scenes": 60_000, "objects": (1, 4)}


def make(folder: Path, *, steps: int, scenes: int, objects: tuple[int, int], **sizes: int | float) -> dict[str, float]:
    """Train, and write the towers as a folder of `CLIPModel` with its tokenizer, in float32; return what was measured."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as run:
        measured = train_pairs(
            seed=0, data="toybox", device="cpu", folder=Path(run), resume=False, steps=steps, scenes=scenes, objects=objects,
            detailed=0.6, learning_rate=4e-3, **sizes,
        )  # fmt: skip
        model = load_weights(small_model("info-nce", **sizes), Path(run))
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return {name: round(value, 4) for name, value in measured.items() if not name.endswith("_curve")}


def make_checkpoint(folder: Path) -> Mapping[str, float]:
    """What `make checkpoint-2` does."""
    return make(folder, **LENGTH_OF_TRAINING, **SIZES)


CHECKPOINT = Checkpoint(
    NAME,
    "A small CLIP that knows the toy world's scenes of up to four things; lessons 3 to 5 see with its image tower.",
    make_checkpoint,
    VERSION,
)
