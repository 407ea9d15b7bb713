"""The shipped assistant that `make serve` starts: the course's own models, trained longer than by `train --debug`.

make checkpoint-5
"""

import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from PIL import Image

from apps.assistant import config
from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, Configuration
from apps.assistant.evaluate import caption_items, evaluate
from apps.assistant.toy_files import TEST_FILES, TEST_TYPES, toy_question
from apps.assistant.train import TOY_WORLD, train_assistant
from data.toybox.heldout import VERSION
from data.toybox.image import render_image
from data.toybox.questions import QUESTION_TYPES
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.devices import fastest_precision

NAME = "lesson_05_llava"
FOLDER = CHECKPOINTS_FOLDER / NAME
QUESTIONS_PER_TYPE = 100
SPLITS = {"seen": "validation", "unseen": "test"}
"""The splits whose combinations of color and shape were seen and not seen in training."""
PARENTS = ("lesson_00_decoder", "lesson_02_clip")


def make(folder: Path, configuration: Configuration, *, per_type: int = QUESTIONS_PER_TYPE) -> dict[str, float]:
    """Train in stages, write the assistant's folder, and return its scores on held-out scenes.

    per_type  number of questions per type and split
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary)
        shutil.copytree(train_assistant(configuration, output), folder, dirs_exist_ok=True)
        return measure(Assistant.from_folder(folder), output / TOY_WORLD, per_type)


def measure(assistant: Assistant, toy_world: Path, per_type: int) -> dict[str, float]:
    """Return the scores of the captions of the toy world's test file, and the accuracies of answers."""
    captions = caption_items(str(toy_world / TEST_FILES["captions"]), assistant.settings.caption_prompt)
    scores = {
        f"captions {name}": score for name, score in evaluate(assistant, captions, [])["captions"]["scores"].items()
    }
    return {name: round(score, 4) for name, score in (scores | answer_accuracies(assistant, per_type=per_type)).items()}


def answer_accuracies(
    assistant: Assistant, *, per_type: int, seed: int = 0, combinations: Collection[str] = tuple(SPLITS)
) -> dict[str, float]:
    """Return the accuracy per question type on seen and on unseen combinations, and means over the twelve types.

    Every answer of a type is right equally often. Means are also given for scenes of one and two objects, and of three.

    combinations  names of `SPLITS`: which combinations are measured
    """
    measured: dict[str, float] = {}
    for name in combinations:
        items = {
            question_type: [toy_question(SPLITS[name], seed, number, question_type) for number in range(per_type)]
            for question_type in TEST_TYPES
        }
        pairs = [pair for rows in items.values() for pair in rows]
        images = [Image.fromarray(render_image(scene, assistant.preprocessing.size)) for scene, _ in pairs]
        answers = iter(assistant.answer_question(images, [question.text for _, question in pairs]))
        correct: dict[str, list[bool]] = {}
        sizes: dict[str, list[int]] = {}
        for question_type, rows in items.items():
            correct[question_type] = [next(answers) == question.answer for _, question in rows]
            sizes[question_type] = [len(scene.objects) for scene, _ in rows]
            measured[f"{name} combinations, {question_type}"] = fmean(correct[question_type])
        for label, least, most in (("1 to 3 objects", 1, 3), ("1 or 2 objects", 1, 2), ("3 objects", 3, 3)):
            means = []
            for question_type in QUESTION_TYPES:
                results = zip(correct[question_type], sizes[question_type], strict=True)
                if chosen := [is_correct for is_correct, size in results if least <= size <= most]:
                    means.append(fmean(chosen))
            if means:
                measured[f"{name} combinations, {label}"] = fmean(means)
    return measured


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
