"""The toy world as files of records with images, in both formats.

images/…             images              train_captions.json       flat: image, text
test_captions.json   flat                train_instructions.json   conversations: up to nine requests about an image
test_questions.json  flat                (every test scene has a held-out combination of color and shape)
"""

import json
from pathlib import Path

from PIL import Image

from apps.assistant.records import DESCRIBE, IMAGE
from data.toybox.conversations import PURPOSE, question_turns, scene_setting
from data.toybox.heldout import scene_at
from data.toybox.image import render_image
from data.toybox.language import caption
from data.toybox.questions import QUESTION_TYPES, Question, question_at
from data.toybox.scene import Scene, stream
from data.toybox.unanswerable import OTHER_SCENES, UNANSWERABLE, unanswerable_at
from shared.atomic import disk_errors, write_atomically

OBJECTS = (1, 3)
"""Smallest and largest number of objects per scene."""
SETTING = scene_setting(OBJECTS, unanswerable=0.3)
TEST_TYPES = (*QUESTION_TYPES, UNANSWERABLE)
TURNS = 8
CAPTION_FIRST, CAPTION_LAST = 0.2, 0.2
"""Fractions of the conversations that begin and end with a request for a caption, in the place of three questions."""
TURNS_WITH_CAPTION = TURNS - 3
LEVEL = "places"
TRAINING_FILES = {"captions": "train_captions.json", "instructions": "train_instructions.json"}
TEST_FILES = {"captions": "test_captions.json", "questions": "test_questions.json"}
MIN_TEST_RECORDS = 64


def write_toy_world(
    folder: Path, examples: int, *, size: int = 32, seed: int = 0, caption_prompt: str = DESCRIBE
) -> None:
    """Write all files, with `examples` records per training file and a tenth of it, at least 64, per test file.

    `caption_prompt` is the request for a caption within conversations. The same call writes the same bytes. Raises
    CourseError when the disk refuses.
    """
    test_records = max(MIN_TEST_RECORDS, examples // 10)
    with disk_errors(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        training = [scene_at("train", seed, number, OBJECTS) for number in range(examples)]
        for number, scene in enumerate(training):
            _write_image(folder, _image_name("train", number), scene, size)
        test = [scene_at("test", seed, number, OBJECTS) for number in range(test_records)]
        for number, scene in enumerate(test):
            _write_image(folder, _image_name("test", number), scene, size)
        questions = []
        for number in range(test_records):
            scene, question = _test_question(seed, number)
            _write_image(folder, _image_name("question", number), scene, size)
            record = {"image": _image_name("question", number), "prompt": question.text, "text": question.answer}
            questions.append(record | {"question_type": question.type})
    for name, records in {
        TRAINING_FILES["captions"]: [_caption_record("train", number, scene) for number, scene in enumerate(training)],
        TRAINING_FILES["instructions"]: [
            _conversation(number, scene, seed, caption_prompt) for number, scene in enumerate(training)
        ],
        TEST_FILES["captions"]: [_caption_record("test", number, scene) for number, scene in enumerate(test)],
        TEST_FILES["questions"]: questions,
    }.items():
        write_atomically(folder / name, (json.dumps(records, indent=1) + "\n").encode())


def _test_question(seed: int, number: int) -> tuple[Scene, Question]:
    """Return test question `number` and its scene; the types alternate."""
    question_type = TEST_TYPES[number % len(TEST_TYPES)]
    if question_type == UNANSWERABLE:
        return unanswerable_at("test", seed, number, OBJECTS)
    return question_at("test", seed, number, question_type, OBJECTS)


def _image_name(split: str, number: int) -> str:
    return f"images/{split}-{number:06}.png"


def _write_image(folder: Path, name: str, scene: Scene, size: int) -> None:
    Image.fromarray(render_image(scene, size)).save(folder / name)


def _caption_record(split: str, number: int, scene: Scene) -> dict[str, str]:
    """Return a record without a prompt: training, evaluation and service use the configuration's `caption_prompt`."""
    return {"image": _image_name(split, number), "text": caption(scene, LEVEL)}


def _conversation(number: int, scene: Scene, seed: int, caption_prompt: str) -> dict[str, object]:
    """Return a few questions about one scene, as lesson 5's experiment uses them, some with a caption before or after.

    A caption in the same conversation shares the image's tokens, so it costs less than a record of its own.
    """
    other = scene_at("train", seed, number + OTHER_SCENES, OBJECTS)
    rng = stream(seed, number, PURPOSE)
    place, description = rng.random(), (caption_prompt, caption(scene, LEVEL))
    is_first, is_last = place < CAPTION_FIRST, place >= 1 - CAPTION_LAST
    questions = question_turns(scene, other, TURNS_WITH_CAPTION if is_first or is_last else TURNS, SETTING, rng)
    requests = [description] * is_first + questions + [description] * is_last
    turns = []
    for position, (request, answer) in enumerate(requests):
        turns.append({"from": "human", "value": request if position else f"{IMAGE}\n{request}"})
        turns.append({"from": "assistant", "value": answer})
    return {"id": f"toy-{number}", "image": _image_name("train", number), "conversations": turns}
