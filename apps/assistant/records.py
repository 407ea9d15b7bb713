"""Training data of an assistant: a JSON file with a list of records, each an image and a conversation about it.

Two formats, which a file may mix. Conversations, as in LLaVA's own data (arXiv:2304.08485, section 3):

    {"image": "cat.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is this?"},
                                           {"from": "assistant", "value": "A cat."}]}

("gpt" is read as "assistant", "user" as "human"; without an "image" it is a conversation about none.) And flat:

    {"image": "cat.jpg", "text": "A cat.", "prompt": "What is this?"}

where the prompt is optional; without one it is the configuration's `caption_prompt`. "question_type" is what evaluation
reports separately. Other keys are ignored, unless they are a misspelling of one of these.
"""

import os
import stat
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.assistant.record_checks import AnsweredQuestions, RecordRules, character_error, key_errors, printable_key
from shared.errors import CourseError
from shared.file_names import file_name_error, leaves_folder
from shared.images import open_image
from shared.json_text import RepeatedKeys, shorten
from shared.text_files import read_json
from shared.tokenizers import Turn

IMAGE = "<image>"
DESCRIBE = "describe the image."
MAX_REASONS = 20
"""The most reasons that a message lists."""
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True)
class Record:
    """Hold a conversation; if there is an image, exactly one user turn contains one "<image>"."""

    image: Path | None
    turns: tuple[Turn, ...]
    question_type: str = ""


@dataclass(frozen=True)
class BadRecord:
    """Name a record that cannot be used: its index in the file's list, counted from 0, and the reason.

    kind  the reason without the name of the record's image, equal for records with the same fault
    """

    index: int
    reason: str
    kind: str


def read_records(
    file: Path | str,
    images: Path | str | None = None,
    *,
    rules: RecordRules = RecordRules(),  # noqa: B008 – it is frozen
    check_images: bool = True,
    caption_prompt: str = DESCRIBE,
) -> tuple[dict[int, Record], list[BadRecord]]:
    """Return the good records of a file by their indices, and all bad ones.

    images          folder of the images; None: the folder of the file
    rules           what the file may hold
    check_images    decode every image; without it only missing ones are found
    caption_prompt  prompt of flat records without one

    Raises CourseError when the file cannot be read as a list.
    """
    file = Path(file)
    folder = file.parent if images is None else Path(images)
    good: dict[int, Record] = {}
    bad: list[BadRecord] = []
    answered = AnsweredQuestions()
    for index, content in enumerate(_read_list(file)):
        record, errors = _parse_record(content, folder, rules, check_images, caption_prompt)
        # A caption, which has no prompt of its own, is one of many that an image may have.
        has_question = record is not None and not errors and ("prompt" in content or "conversations" in content)
        if record is not None and has_question and not rules.several_answers:
            errors += filter(None, [answered.contradiction(index, record.image, record.turns)])
        if record is None or errors:
            image = content.get("image") if isinstance(content, Mapping) else None
            reason = "; ".join(errors)
            kind = reason.replace(str(folder / image), "the image") if isinstance(image, str) and image else reason
            bad.append(BadRecord(index, reason, kind))
        else:
            good[index] = record
    return good, bad


def load_records(
    file: Path | str,
    images: Path | str | None = None,
    *,
    rules: RecordRules = RecordRules(),  # noqa: B008 – it is frozen
    skip_bad: bool = False,
    caption_prompt: str = DESCRIBE,
) -> list[Record]:
    """Return the records of a file. Raises CourseError as `refuse_or_skip` does."""
    good, bad = read_records(file, images, rules=rules, caption_prompt=caption_prompt)
    refuse_or_skip(file, len(good), bad, skip_bad)
    return list(good.values())


def refuse_or_skip(file: Path | str, good: int, bad: Sequence[BadRecord], skip_bad: bool) -> None:
    """Print a warning about skipped records: the most frequent reasons once each, with how many records they
    concern and the first of these.

    Raises CourseError for bad records without `skip_bad`, or no good one.
    """
    if good and bad and skip_bad:
        first = {each.kind: each.index for each in reversed(bad)}
        lines = [f"warning: {file}: {len(bad):,} of {len(bad) + good:,} records are skipped:"]
        lines += [
            f"  {count:,} × {kind} (first: {first[kind]})"
            for kind, count in Counter(each.kind for each in bad).most_common(MAX_REASONS)
        ]
        lines += [f"  … and {len(first) - MAX_REASONS:,} other reasons"] if len(first) > MAX_REASONS else []
        print("\n".join(lines), file=sys.stderr, flush=True)
    elif bad or not good:
        advice = "correct them, or set skip_bad to leave them out" if good else "there is nothing to train on"
        raise CourseError(f"{report(file, good, bad, limit=MAX_REASONS)}\n  {advice}")


def report(file: Path | str, good: int, bad: Sequence[BadRecord], *, limit: int | None = None) -> str:
    """Return the number of bad records and their reasons: all, or the first `limit`."""
    lines = [f"{file}: {len(bad):,} bad records of {good + len(bad):,}"]
    lines += [f"  {each.index}: {each.reason}" for each in bad[:limit]]
    more = len(bad[limit:]) if limit is not None else 0
    return "\n".join(lines + ([f"  … and {more:,} more"] if more else []))


def _read_list(file: Path) -> list[Any]:
    content = read_json(file, advice="Expected a JSON file with a list of records")
    if not isinstance(content, list) or not content:
        description = "an empty list" if content == [] else f"a JSON {type(content).__name__}"
        raise CourseError(f"{file} holds {description}; expected a list of records")
    return content


def _parse_record(
    content: Any, folder: Path, rules: RecordRules, check_images: bool, caption_prompt: str
) -> tuple[Record | None, list[str]]:
    """Return the record, and its errors."""
    if not isinstance(content, Mapping):
        return None, [f"a {type(content).__name__}; expected an object"]
    errors = list(key_errors(content))
    image = content.get("image")
    if image is not None and (error := file_name_error(image)):
        errors.append(f"image is {error}")
        image = None
    elif image is not None and leaves_folder(image) and not rules.outside_images:
        errors.append(f"image is {shorten(image)}, outside of the images' folder; allow that with outside_images")
    elif image is not None and (error := _image_error(folder / image, check_images)):
        errors.append(error)
    if "conversations" in content:
        turns = _parse_conversation(content["conversations"], errors)
    elif "text" in content:
        turns = _parse_flat(content, caption_prompt, errors)
        if "image" not in content:
            errors.append("no image")
    else:
        keys = ", ".join(map(printable_key, content)) or "nothing"
        return None, [*errors, f"neither conversations nor text; it holds {keys}"]
    if turns:
        placeholders = sum(turn.text.count(IMAGE) for turn in turns if turn.role != "assistant")
        if placeholders != ("image" in content and content["image"] is not None):
            errors.append(f"an image, and {placeholders} {IMAGE}" if placeholders != 1 else f"{IMAGE}, and no image")
        if any(IMAGE in turn.text for turn in turns if turn.role == "assistant"):
            errors.append(f"{IMAGE} in an answer")
    question_type = content.get("question_type", "")
    if not isinstance(question_type, str):
        errors.append(f"question_type is {shorten(question_type)}; expected a text")
    elif error := character_error("question_type", question_type):
        errors.append(error)
    file = None if image is None else folder / image
    return Record(file, tuple(turns), question_type), errors


def _parse_conversation(content: Any, errors: list[str]) -> list[Turn]:
    """Return the turns of a conversation; an empty list after an error that ends the parsing."""
    if not isinstance(content, list) or not content:
        errors.append(f"conversations is {shorten(content)}; expected a list of turns")
        return []
    turns = []
    for number, each in enumerate(content):
        is_turn = isinstance(each, Mapping) and all(isinstance(each.get(key), str) for key in ("from", "value"))
        if not is_turn or isinstance(each, RepeatedKeys):
            errors.append(
                f"turn {number} is {shorten(each)}; expected an object with the texts from and value, once each"
            )
            return []
        if each["from"] not in ROLES:
            errors.append(f"turn {number} is from {shorten(each['from'])}; expected human or assistant")
            return []
        turns.append(Turn(ROLES[each["from"]], each["value"].strip()))
    roles = [turn.role for turn in turns[turns[0].role == "system" :]]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        names = ", ".join(each["from"] for each in content)
        errors.append(f"the turns are {names}; expected human and assistant in turn, ending with an answer")
    errors += filter(None, (character_error(f"turn {number}", turn.text) for number, turn in enumerate(turns)))
    errors += [
        f"turn {number} is an empty {'answer' if turn.role == 'assistant' else 'text'}"
        for number, turn in enumerate(turns)
        if not turn.text
    ]
    return turns


def _parse_flat(content: Mapping[str, Any], caption_prompt: str, errors: list[str]) -> list[Turn]:
    text, prompt = content["text"], content.get("prompt", caption_prompt)
    wrong = [
        f"{name} is {shorten(value)}; expected a text"
        for name, value in (("text", text), ("prompt", prompt))
        if not isinstance(value, str)
    ]
    errors += wrong
    if wrong:
        return []
    if not text.strip():
        errors.append("an empty answer: text is all spaces" if text else "an empty answer: text is empty")
    if not prompt.strip():
        errors.append("prompt is empty; leave it out, or write a question")
    errors += filter(None, (character_error(*each) for each in (("text", text), ("prompt", prompt))))
    question = prompt.strip() if IMAGE in prompt else f"{IMAGE}\n{prompt.strip()}"
    return [Turn("user", question), Turn("assistant", text.strip())]


@lru_cache(maxsize=100_000)
def _image_error(image: Path, decode: bool) -> str | None:
    """Return what is wrong with an image file, if anything; each file is opened once, however many records use it."""
    try:
        if not stat.S_ISREG(os.stat(image).st_mode):
            return f"{image} is no file"
    except (FileNotFoundError, NotADirectoryError):
        return f"{image} does not exist"
    except OSError as error:
        return f"{image} cannot be read ({error.strerror})"
    if not decode:
        return None
    try:
        open_image(image)
    except CourseError as error:
        return str(error)
    return None
