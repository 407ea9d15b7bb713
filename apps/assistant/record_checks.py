"""What is checked in a record beyond its format: misspelled keys, unwritable characters, and contradicting answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from shared.json_text import RepeatedKeys, has_lone_surrogate, shorten
from shared.tokenizers import Turn

KEYS = ("image", "conversations", "text", "prompt", "question_type")
OTHER_NAMES = {
    "image": ("file_name", "filename", "img", "image_path"),
    "text": ("caption", "captions", "answer", "answers"),
    "prompt": ("question", "questions", "instruction"),
}
"""Names of other programs for what the flat format calls image, text and prompt. They are not read."""
INTENDED = {other: name for name, others in OTHER_NAMES.items() for other in others}
SIMILARITY = 0.8
"""From this ratio on, an unknown key is a misspelled one."""


@dataclass(frozen=True)
class RecordRules:
    """State what a file of records may hold.

    outside_images   whether images may lie outside of the images' folder: absolute names, or names with ".."
    several_answers  whether one question about one image may have several different answers
    """

    outside_images: bool = False
    several_answers: bool = False


def key_errors(content: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is wrong with the keys of a record; keys that resemble none of `KEYS` are ignored."""
    if isinstance(content, RepeatedKeys):
        yield from (f"{printable_key(name)} is given twice" for name in content.repeated)
    for name in content:
        intended = None if name in KEYS else _misspelled_key(name) or INTENDED.get(name.strip().lower())
        # Beside the key that is read, another program's key is one of the others, which are ignored.
        is_needed = "conversations" not in content and intended not in content
        if intended and (is_needed or intended == _misspelled_key(name)):
            yield f"{printable_key(name)}: no such key; did you mean {intended}?"
    if "conversations" in content and (others := [name for name in ("text", "prompt") if name in content]):
        yield f"conversations and {' and '.join(others)}; expected one of the two formats"


def _misspelled_key(name: str) -> str | None:
    lower = name.strip().lower()
    # "image_id" and "text_source" are other keys; misspelled ones have no further word.
    matches = get_close_matches(lower, KEYS, n=1, cutoff=SIMILARITY)
    return next((each for each in matches if not lower.startswith(f"{each}_") and not lower.endswith(f"_{each}")), None)


def printable_key(name: str) -> str:
    """Return a key as it is, or as Python spells it when it cannot be printed."""
    return name if name.isprintable() and len(name) <= 60 else shorten(name)


def character_error(name: str, text: str) -> str | None:
    """Return an error, which calls the text `name`, when the text cannot be written as UTF-8."""
    if not has_lone_surrogate(text):
        return None
    return f"{name} holds half of a character (a lone surrogate): {shorten(text)}; write the complete character"


@dataclass
class AnsweredQuestions:
    """Find records that answer the same first question about the same image differently."""

    record_of: dict[tuple[Path, tuple[Turn, ...]], tuple[int, str]] = field(default_factory=dict)

    def contradiction(self, index: int, image: Path | None, turns: Sequence[Turn]) -> str | None:
        """Return an error when an earlier record has another answer; else remember this record.

        Conversations without an image, and equal answers, contradict nothing.
        """
        if image is None:
            return None
        position = next(number for number, turn in enumerate(turns) if turn.role == "assistant")
        answer = turns[position].text
        earlier, earlier_answer = self.record_of.setdefault((image, tuple(turns[:position])), (index, answer))
        if answer == earlier_answer:
            return None
        return (
            f"the question of record {earlier} about the same image, with another answer: {shorten(answer)}, and there "
            f"{shorten(earlier_answer)}; correct one, or allow both with several_answers"
        )
