"""The shipped assistant that `make serve` starts: the course's own models, trained longer than by `train --debug`.

make checkpoint-5
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from apps.assistant import config
from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, Configuration
from apps.assistant.evaluate import caption_items, evaluate, question_items
from apps.assistant.toy_files import TEST_FILES
from apps.assistant.train import TOY_WORLD, train_assistant
from data.toybox.heldout import VERSION
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.devices import fastest_precision

NAME = "lesson_05_llava"
FOLDER = CHECKPOINTS_FOLDER / NAME
PARENTS = ("lesson_00_decoder", "lesson_02_clip")


def make(folder: Path, configuration: Configuration) -> dict[str, float]:
    """Train in two stages, write the assistant's folder, and return its scores on held-out scenes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary)
        shutil.copytree(train_assistant(configuration, output), folder, dirs_exist_ok=True)
        toy_world = output / TOY_WORLD
        prompt = configuration.model.caption_prompt
        results = evaluate(
            Assistant.from_folder(folder),
            caption_items(str(toy_world / TEST_FILES["captions"]), prompt),
            question_items(str(toy_world / TEST_FILES["questions"]), prompt),
        )
    return {
        f"{task} {name}": round(score, 4)
        for task, result in results.items()
        for name, score in result["scores"].items()
    }


def make_checkpoint(folder: Path) -> Mapping[str, float]:
    """Train the checkpoint, as `make checkpoint-5` does."""
    configuration = config.load(CONFIGURATIONS / "checkpoint.json")
    return make(folder, replace(configuration, device="cpu", precision=fastest_precision()))


CHECKPOINT = Checkpoint(
    NAME,
    "An assistant that describes toy-world scenes of one to three objects and answers questions about them; "
    "`make serve` starts it.",
    make_checkpoint,
    VERSION,
    PARENTS,
)
