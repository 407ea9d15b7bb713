"""The toy world as files that an assistant can learn from: pictures, and what is said about them in both formats.

python -m apps.assistant.toy FOLDER [--examples 1000] [--size 32]

images/…            pictures            train_captions.json       flat: image, text, prompt
test_captions.json  flat                train_instructions.json   conversations: three questions about a picture
test_questions.json flat                (test: every scene has a combination of colour and shape that training never shows)
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from apps.assistant.records import IMAGE
from data.toybox.heldout import scene_at
from data.toybox.image import render_image
from data.toybox.language import caption
from data.toybox.questions import question_at
from data.toybox.scene import Scene
from lessons.lesson_05_llava.experiment.conversations import World, questions_about
from shared.atomic import disk_errors, write_atomically
from shared.cli import command_line

OBJECTS = (1, 2)
KINDS = (
    "colour",
    "shape",
    "size",
    "texture",
    "place",
    "existence",
)  # of questions that one or two things are enough for
WORLD = World(OBJECTS, KINDS)
TURNS = 3
LEVEL = "places"
CAPTION = "what is in the picture?"
FILES = {"captions": "train_captions.json", "instructions": "train_instructions.json"}


def write_toy_world(folder: Path, examples: int, *, size: int = 32, seed: int = 0) -> None:
    """Write all files, `examples` records in each to train on, and a tenth (64 at least) in each to test on.

    The same call writes the same bytes. Raises CourseError when the disk refuses.
    """
    held_back = max(64, examples // 10)
    with disk_errors(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        train = [scene_at("train", seed, number, OBJECTS) for number in range(examples)]
        for number, scene in enumerate(train):
            _draw(folder, _name("train", number), scene, size)
        captions = [_captioned("train", number, scene) for number, scene in enumerate(train)]
        talks = [_conversation(number, scene, seed) for number, scene in enumerate(train)]
        test = [scene_at("test", seed, number, OBJECTS) for number in range(held_back)]
        for number, scene in enumerate(test):
            _draw(folder, _name("test", number), scene, size)
        questions = []
        for number in range(held_back):
            scene, question = question_at("test", seed, number, KINDS[number % len(KINDS)], OBJECTS)
            _draw(folder, _name("question", number), scene, size)
            asked = {"image": _name("question", number), "prompt": question.text, "text": question.answer}
            questions.append(asked | {"kind": question.type})
    for name, records in {
        FILES["captions"]: captions,
        FILES["instructions"]: talks,
        "test_captions.json": [_captioned("test", number, scene) for number, scene in enumerate(test)],
        "test_questions.json": questions,
    }.items():
        write_atomically(folder / name, (json.dumps(records, indent=1) + "\n").encode())


def _name(split: str, number: int) -> str:
    return f"images/{split}-{number:06}.png"


def _draw(folder: Path, name: str, scene: Scene, size: int) -> None:
    Image.fromarray(render_image(scene, size)).save(folder / name)


def _captioned(split: str, number: int, scene: Scene) -> dict[str, str]:
    return {"image": _name(split, number), "prompt": CAPTION, "text": caption(scene, LEVEL)}


def _conversation(number: int, scene: Scene, seed: int) -> dict[str, object]:
    """A few questions about one scene, as the lesson's own arms learn from."""
    other = scene_at("train", seed, number + 2**39, OBJECTS)  # where things come from that are asked for in vain
    said = []
    for place, (text, answer) in enumerate(questions_about(scene, other, TURNS, WORLD, seed, number)):
        said.append({"from": "human", "value": text if place else f"{IMAGE}\n{text}"})
        said.append({"from": "assistant", "value": answer})
    return {"id": f"toy-{number}", "image": _name("train", number), "conversations": said}


@command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="toy", description="Write the toy world as files to learn from.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    asked = parser.parse_args(arguments)
    write_toy_world(asked.folder, asked.examples, size=asked.size)
    print(f"{asked.examples:,} records to train on in each of {', '.join(FILES.values())}, in {asked.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
