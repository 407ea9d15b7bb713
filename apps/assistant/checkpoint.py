"""The assistant that `make serve` starts: the course's own encoders, trained longer than `debug` trains them.

make checkpoint-5
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from apps.assistant import config, evaluate, train
from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, Configuration
from data.toybox.heldout import VERSION
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint

NAME = "lesson_05_llava"
FOLDER = CHECKPOINTS_FOLDER / NAME
PARENTS = ("lesson_00_decoder", "lesson_02_clip")


def make(folder: Path, configuration: Configuration) -> dict[str, float]:
    """Train in two stages, write the assistant's folder, and return what it is worth on held-out scenes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        output = Path(place)
        shutil.copytree(train.run(configuration, output), folder, dirs_exist_ok=True)
        toy = output / train.TOY_WORLD
        found = evaluate.evaluate(
            Assistant.from_folder(folder),
            evaluate.captions_of(str(toy / "test_captions.json")),
            evaluate.questions_of(str(toy / "test_questions.json")),
        )
    return {
        f"{about} {name}": round(value, 4) for about, said in found.items() for name, value in said["scores"].items()
    }


def make_checkpoint(folder: Path) -> Mapping[str, float]:
    """What `make checkpoint-5` does."""
    return make(folder, replace(config.load(CONFIGURATIONS / "checkpoint.json"), device="cpu"))


CHECKPOINT = Checkpoint(
    NAME,
    "An assistant that sees scenes of one or two things of the toy world, describes them and answers; `make serve` starts it.",
    make_checkpoint,
    VERSION,
    PARENTS,
)
