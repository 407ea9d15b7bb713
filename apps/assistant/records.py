"""What an assistant learns from: a JSON file with a list of records, each a picture and what was said about it.

Two formats, which may be mixed. Conversations, as LLaVA's own data have them (arXiv:2304.08485, section 3):

    {"image": "cat.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"}, {"from": "assistant", "value": "A cat."}]}

("gpt" stands for "assistant" too, and "user" for "human"; without an "image" it is a conversation about none.) And flat:

    {"image": "cat.jpg", "text": "A cat.", "prompt": "What is this?"}

where a prompt may be left out. What else a record holds is not looked at. See what is wrong with a file:

    python -m apps.assistant.records FILE [--images FOLDER]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.assistant.pictures import open_picture
from shared.cli import command_line
from shared.errors import CourseError
from shared.tokenizers import Turn

IMAGE = "<image>"
DESCRIBE = "describe the picture."
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}

SLIMMEST = 100


@dataclass(frozen=True)
class Record:
    """A conversation, in which "<image>" stands once in what the user says if there is an image, and else never.

    kind  what sort of question it is, where a record says so ("kind": "colour"): evaluation tells them apart
    """

    image: Path | None
    turns: tuple[Turn, ...]
    kind: str = ""


@dataclass(frozen=True)
class Bad:
    """A record that nothing can be learned from: its place in the file's list, counted from 0, and why."""

    index: int
    reason: str


def read_records(
    file: Path | str, images: Path | str | None = None, *, look: bool = True
) -> tuple[dict[int, Record], list[Bad]]:
    """All good records of a file by their places in it, and all bad ones.

    images  folder that images are named from; left out, that of the file
    look    open every image to its end; without it only missing ones are found

    Raises CourseError when the file itself cannot be read as a list.
    """
    file = Path(file)
    folder = file.parent if images is None else Path(images)
    good: dict[int, Record] = {}
    bad: list[Bad] = []
    for index, content in enumerate(_listed(file)):
        record, problems = _record(content, folder, look)
        if problems:
            bad.append(Bad(index, "; ".join(problems)))
        else:
            good[index] = record
    return good, bad


def load_records(file: Path | str, images: Path | str | None = None, *, skip_bad: bool = False) -> list[Record]:
    """The records of a file. Raises CourseError as `refuse_or_skip` does."""
    good, bad = read_records(file, images)
    refuse_or_skip(file, len(good), bad, skip_bad)
    return list(good.values())


def refuse_or_skip(file: Path | str, good: int, bad: Sequence[Bad], skip_bad: bool) -> None:
    """Say how many bad records are left out; or raise CourseError when they are not to be, or nothing good is left."""
    if good and bad and skip_bad:
        some = f"{len(bad):,} of {len(bad) + good:,} records are left out, the first is {bad[0].index}: {bad[0].reason}"
        print(f"warning: {file}: {some}", file=sys.stderr, flush=True)
    elif bad or not good:
        advice = "mend them, or leave them out with skip_bad" if good else "there is nothing to learn from"
        raise CourseError(f"{report(file, good, bad, shown=20)}\n  {advice}")


def report(file: Path | str, good: int, bad: Sequence[Bad], *, shown: int | None = None) -> str:
    """How many records are bad, and why: all of them, or the first `shown`."""
    lines = [f"{file}: {len(bad):,} bad records of {good + len(bad):,}"]
    lines += [f"  {each.index}: {each.reason}" for each in bad[:shown]]
    more = len(bad[shown:]) if shown is not None else 0
    return "\n".join(lines + ([f"  … and {more:,} more"] if more else []))


def _listed(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{file} is not there; expected a JSON file with a list of records") from None
    except (OSError, ValueError) as error:
        raise CourseError(f"{file} cannot be read as JSON ({error}); expected a list of records") from error
    if not isinstance(content, list) or not content:
        what = "an empty list" if content == [] else f"a JSON {type(content).__name__}"
        raise CourseError(f"{file} holds {what}; expected a list of records")
    return content


def _record(content: Any, folder: Path, look: bool) -> tuple[Record | None, list[str]]:
    """The record, and what is wrong with it."""
    if not isinstance(content, Mapping):
        return None, [f"a {type(content).__name__}; expected an object"]
    problems: list[str] = []
    image = content.get("image")
    if image is not None and not (isinstance(image, str) and image):
        problems.append(f"image is {image!r}; expected a file's name")
        image = None
    elif image is not None and (fault := _fault(folder / image, look)):
        problems.append(fault)
    if "conversations" in content:
        turns = _conversation(content["conversations"], problems)
    elif "text" in content:
        turns = _flat(content, problems)
        if "image" not in content:
            problems.append("no image")
    else:
        return None, [
            *problems,
            f"neither conversations nor text; it holds {', '.join(map(str, content)) or 'nothing'}",
        ]
    if turns:
        places = sum(turn.text.count(IMAGE) for turn in turns if turn.role != "assistant")
        if places != ("image" in content and content["image"] is not None):
            problems.append(f"an image, and {places} {IMAGE}" if places != 1 else f"{IMAGE}, and no image")
        if any(IMAGE in turn.text for turn in turns if turn.role == "assistant"):
            problems.append(f"{IMAGE} in an answer")
    kind = content.get("kind")
    place = None if image is None else folder / image
    return Record(place, tuple(turns), kind if isinstance(kind, str) else ""), problems


def _conversation(said: Any, problems: list[str]) -> list[Turn]:
    """The turns of a conversation; empty where there is too much wrong with it to look further."""
    if not isinstance(said, list) or not said:
        problems.append(f"conversations is {_short(said)}; expected a list of turns")
        return []
    turns = []
    for number, each in enumerate(said):
        if (
            not isinstance(each, Mapping)
            or not isinstance(each.get("from"), str)
            or not isinstance(each.get("value"), str)
        ):
            problems.append(f"turn {number} is {_short(each)}; expected an object with the texts from and value")
            return []
        if each["from"] not in ROLES:
            problems.append(f"turn {number} is from {each['from']!r}; expected human or assistant")
            return []
        turns.append(Turn(ROLES[each["from"]], each["value"].strip()))
    spoken = [turn.role for turn in turns[turns[0].role == "system" :]]
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        problems.append(
            f"the turns are {', '.join(each['from'] for each in said)}; expected human and assistant in turn, an answer last"
        )
    problems += [
        f"turn {number} is an empty {'answer' if turn.role == 'assistant' else 'text'}"
        for number, turn in enumerate(turns)
        if not turn.text
    ]
    return turns


def _flat(content: Mapping[str, Any], problems: list[str]) -> list[Turn]:
    text, prompt = content["text"], content.get("prompt", DESCRIBE)
    wrong = [
        f"{name} is {_short(value)}; expected a text"
        for name, value in (("text", text), ("prompt", prompt))
        if not isinstance(value, str)
    ]
    problems += wrong
    if wrong:
        return []
    if not text.strip():
        problems.append("an empty answer: text is all spaces" if text else "an empty answer: text is empty")
    if not prompt.strip():
        problems.append("prompt is empty; leave it out, or ask something")
    asked = prompt.strip() if IMAGE in prompt else f"{IMAGE}\n{prompt.strip()}"
    return [Turn("user", asked), Turn("assistant", text.strip())]


@lru_cache(maxsize=100_000)
def _fault(image: Path, look: bool) -> str | None:
    """What is wrong with an image's file, if anything is; each is opened once, in however many records it stands."""
    if not image.is_file():
        return f"{image} is not there"
    if not look:
        return None
    try:
        width, height = open_picture(image).size
    except CourseError as error:
        return str(error)
    if max(width, height) > SLIMMEST * min(width, height):
        return f"{image} has {width} × {height} pixels; one side may be {SLIMMEST} times the other at most"
    return None


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


@command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="records", description="Say which records of a file are bad, and why.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=Path, help="the folder that images are named from; left out, the file's own")
    asked = parser.parse_args(arguments)
    good, bad = read_records(asked.file, asked.images)
    print(report(asked.file, len(good), bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
