"""What an assistant states about itself, from the names of its training data: its scope, and sample scenes."""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from apps.assistant.config import TOY_PREFIX
from apps.assistant.toy_files import LEVEL
from data.toybox.heldout import scene_at
from data.toybox.image import render_image
from data.toybox.language import caption
from data.toybox.question_sets import questions_about
from data.toybox.scene import stream
from data.toybox.unanswerable import OTHER_SCENES, unanswerable_question
from shared.course.checkpoint import PROVENANCE
from shared.serving import ModelCard, Sample

TOY_DATA = (f"{TOY_PREFIX}world",)
"""Names the training data of a checkpoint in data/checkpoints, whose provenance states the toy world's version."""
SAMPLES = (0, 1, 2, 3, 4, 5)
"""Numbers of the sample scenes."""
QUESTIONS_PER_SAMPLE = 4
PURPOSE = 221
"""Of the samples' random numbers in `stream`."""
TOY_SCOPE = (
    "This model was trained on the toy world only: images of one to three colored shapes, as in the samples. It "
    "describes them and answers short questions about their attributes, places, number and relations. About one in "
    "five answers about three objects is wrong. Where the image cannot tell, the right answer is “i can't tell”. It "
    "answers about photographs and other subjects, too, but these answers mean nothing."
)
FILES_SCOPE = (
    "This model was fine-tuned on {files}. Its answers about other kinds of images and questions may be wrong, and it "
    "gives them with the same confidence."
)
UNKNOWN_SCOPE = (
    "The data that this model was trained on is not recorded here. Any of its answers may be wrong, and it gives wrong "
    "ones with the same confidence."
)


def training_data_of(folder: Path, recorded: Sequence[str]) -> tuple[str, ...]:
    """Return the names of an assistant's training data: the recorded ones, or those that its provenance states."""
    if recorded:
        return tuple(recorded)
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return TOY_DATA if isinstance(provenance, dict) and provenance.get("toy world") else ()


def make_card(training_data: Sequence[str], image_size: int) -> ModelCard:
    """Return the card of an assistant that was trained on this data, with images of `image_size` pixels per side.

    training_data  names that start with "toy:" for the toy world, else names of files without their folders
    """
    files = [name for name in training_data if not name.startswith(TOY_PREFIX)]
    if files:
        others = ["the toy world"] * (len(files) < len(training_data))
        return ModelCard(FILES_SCOPE.format(files=" and ".join([*files, *others])))
    if not training_data:
        return ModelCard(UNKNOWN_SCOPE)
    samples = tuple(toy_sample(number, image_size) for number in SAMPLES)
    return ModelCard(TOY_SCOPE, follow_ups=False, samples=samples)


def toy_sample(number: int, image_size: int) -> Sample:
    """Return a scene that no model was trained on, with its caption and questions in the words of training.

    The last question is one that the image does not answer.
    """
    objects = (1 + number % 3,) * 2
    scene, other = (scene_at("validation", 0, each, objects) for each in (number, number + OTHER_SCENES))
    rng = stream(0, number, PURPOSE)
    questions = questions_about(scene, other.objects, QUESTIONS_PER_SAMPLE - 1, rng)
    questions.append(unanswerable_question(scene, rng, other.objects, split="validation"))
    texts = tuple(question.text for question in questions)
    return Sample(Image.fromarray(render_image(scene, image_size)), caption(scene, LEVEL), texts)
