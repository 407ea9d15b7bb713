"""The toy world as files of records with images, in both formats.

images/…                 images           train_captions.json      flat: image, text
test_captions.json       flat             train_instructions.json  conversations: up to nine requests about an image
test_questions.json      flat             train_texts.json         conversations with a caption in the image's place

Every test scene has a held-out combination of color and shape. No training scene has one.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image

from apps.assistant.records import DESCRIBE, IMAGE
from data.toybox.conversations import Turns
from data.toybox.curriculum import EVERYTHING
from data.toybox.heldout import scene_at
from data.toybox.image import render_image
from data.toybox.interviews import interview_scene
from data.toybox.language import caption
from data.toybox.questions import QUESTION_TYPES, Question, question_at
from data.toybox.scene import Scene, stream
from data.toybox.unanswerable import UNANSWERABLE, unanswerable_at
from shared.atomic import disk_errors, write_atomically

Json = dict[str, object]
OBJECTS = EVERYTHING.objects
"""Smallest and largest number of objects per scene."""
TEST_TYPES = (*QUESTION_TYPES, UNANSWERABLE)
TURNS = 8
CAPTION_FIRST, CAPTION_LAST = 0.1, 0.3
"""Fractions of the instructions that begin and end with a request for a caption, in the place of three questions."""
TURNS_WITH_CAPTION = TURNS - 3
LEVEL = "places"
TRAINING_FILES = {name: f"train_{name}.json" for name in ("texts", "captions", "instructions")}
TEST_FILES = {"captions": "test_captions.json", "questions": "test_questions.json"}
INSTRUCTION_PURPOSE, TEXT_PURPOSE = 226, 227
"""Numbers of the random numbers that draw conversations about images and about captions."""
TEXT_OFFSET = 5 * 2**30
"""Distance between the numbers of the scenes of these two files."""
MIN_TEST_RECORDS, MAX_TEST_RECORDS = 64, 100 * len(TEST_TYPES)


def write_toy_world(
    folder: Path,
    examples: int,
    *,
    names: Collection[str] = ("captions", "instructions"),
    size: int = 32,
    seed: int = 0,
    caption_prompt: str = DESCRIBE,
) -> None:
    """Write the training files `names` and both test files.

    A training file has `examples` records, a test file a tenth as many, within limits.
    `caption_prompt` is the request for a caption within conversations. The same call writes the same bytes. Raises
    CourseError when the disk refuses, ValueError for an unknown name.
    """
    if unknown := set(names) - set(TRAINING_FILES):
        raise ValueError(f"no training file {', '.join(sorted(unknown))}; choose among {', '.join(TRAINING_FILES)}")
    test_records = min(max(MIN_TEST_RECORDS, examples // 10), MAX_TEST_RECORDS)
    images = _Images(folder / "images", size)
    records: dict[str, list[Json]] = {}
    with disk_errors(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        if "captions" in names:
            scenes = [scene_at("train", seed, number, OBJECTS) for number in range(examples)]
            records[TRAINING_FILES["captions"]] = [
                _caption_record(images.write("train", number, scene), scene) for number, scene in enumerate(scenes)
            ]
        if "instructions" in names:
            records[TRAINING_FILES["instructions"]] = [
                _instruction_record(images, number, seed, caption_prompt) for number in range(examples)
            ]
        if "texts" in names:
            records[TRAINING_FILES["texts"]] = [
                _text_record(number, seed, caption_prompt) for number in range(examples)
            ]
        scenes = [scene_at("test", seed, number, OBJECTS) for number in range(test_records)]
        records[TEST_FILES["captions"]] = [
            _caption_record(images.write("test", number, scene), scene) for number, scene in enumerate(scenes)
        ]
        records[TEST_FILES["questions"]] = [_question_record(images, number, seed) for number in range(test_records)]
    for file, contents in records.items():
        write_atomically(folder / file, (json.dumps(contents, indent=1) + "\n").encode())


@dataclass(frozen=True)
class _Images:
    """Write images of `size` pixels per side into a folder."""

    folder: Path
    size: int

    def write(self, kind: str, number: int, scene: Scene) -> str:
        """Write the image of a scene, and return its name for a record."""
        file = self.folder / f"{kind}-{number:06}.png"
        Image.fromarray(render_image(scene, self.size)).save(file)
        return f"{self.folder.name}/{file.name}"


def toy_question(split: str, seed: int, number: int, question_type: str) -> tuple[Scene, Question]:
    """Return question `number` of a split and one of `TEST_TYPES`, and its scene."""
    if question_type == UNANSWERABLE:
        return unanswerable_at(split, seed, number, OBJECTS)
    return question_at(split, seed, number, question_type, OBJECTS)


def _question_record(images: _Images, number: int, seed: int) -> Json:
    scene, question = toy_question("test", seed, number, TEST_TYPES[number % len(TEST_TYPES)])
    image = images.write("question", number, scene)
    return {"image": image, "prompt": question.text, "text": question.answer, "question_type": question.type}


def _caption_record(image: str, scene: Scene) -> Json:
    """Return a record without a prompt: training, evaluation and service use the configuration's `caption_prompt`."""
    return {"image": image, "text": caption(scene, LEVEL)}


def _instruction_record(images: _Images, number: int, seed: int, caption_prompt: str) -> Json:
    """Return questions of all types about one image, some with a caption before or after."""
    scene, requests = _instructions(number, seed, INSTRUCTION_PURPOSE, caption_prompt)
    return _conversation(images.write("instruction", number, scene), f"instruction-{number}", requests)


def _text_record(number: int, seed: int, caption_prompt: str) -> Json:
    """Return the same requests about a scene that the first turn describes in words."""
    scene, requests = _instructions(TEXT_OFFSET + number, seed, TEXT_PURPOSE, caption_prompt)
    return _conversation(None, f"text-{number}", requests, f"{caption(scene, LEVEL)}.")


def _instructions(number: int, seed: int, purpose: int, caption_prompt: str) -> tuple[Scene, Turns]:
    """Return a scene and requests about it: questions of all types, some with a caption before or after."""
    rng = stream(seed, number, purpose)
    place = rng.random()
    is_first, is_last = place < CAPTION_FIRST, place >= 1 - CAPTION_LAST
    scene, requests = _requests(seed, number, rng, TURNS_WITH_CAPTION if is_first or is_last else TURNS)
    # A caption in the same conversation shares the image's tokens, so it costs less than a record of its own.
    description = (caption_prompt, caption(scene, LEVEL))
    return scene, [description] * is_first + requests + [description] * (is_last or not requests)


def _requests(seed: int, number: int, rng: Random, turns: int) -> tuple[Scene, Turns]:
    """Return a training scene, and up to `turns` questions about it with their answers."""
    setting = replace(EVERYTHING, levels=((LEVEL, 1.0),), questions=(turns, turns))
    scene, _, questions = interview_scene("train", seed, number, rng, setting)
    return scene, [(question.text, question.answer) for question in questions]


def _conversation(image: str | None, identifier: str, requests: Turns, context: str = IMAGE) -> Json:
    """Return a record in the conversation format; the first turn begins with `context`."""
    turns = []
    for position, (request, answer) in enumerate(requests):
        turns.append({"from": "human", "value": request if position else f"{context}\n{request}"})
        turns.append({"from": "assistant", "value": answer})
    return {"id": identifier, **({} if image is None else {"image": image}), "conversations": turns}
