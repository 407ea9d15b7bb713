"""What a captioner's run leaves in its folder: its preset, its tokenizer, its checkpoint; and how to take it up again.

captioner.json            the preset, the seed, and a digest of the captions that it learns from
tokenizer.json            learned from those captions
checkpoint.safetensors    weights, and all that training needs to go on
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.captioner.config import PRESETS
from apps.captioner.model import Captioner
from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.tokenizers import Tokenizer, load_tokenizer, save_tokenizer
from shared.training import load_weights

RECORD, TOKENIZER = "captioner.json", "tokenizer.json"


@dataclass(frozen=True)
class Record:
    """What must be equal for a run to go on."""

    preset: str
    held_out: float
    seed: int
    captions: str
    """A digest of all captions to learn from, in order."""


def digest_of(captions: Sequence[Sequence[str]]) -> str:
    """Equal for equal captions in equal order."""
    return hashlib.sha256(json.dumps([list(said) for said in captions]).encode()).hexdigest()


def begin_run(folder: Path, record: Record, tokenizer: Tokenizer) -> None:
    """Write down what the run is. Raises CourseError when the disk refuses."""
    write_atomically(folder / RECORD, (json.dumps(vars(record), indent=1) + "\n").encode())
    save_tokenizer(tokenizer, folder / TOKENIZER)


def read_record(folder: Path) -> Record:
    """What was written down. Raises CourseError when the folder holds no run of a captioner."""
    try:
        record = Record(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise CourseError(
            f"{folder} holds no captioner ({error}); train one: python -m apps.captioner.train PICTURES --run {folder}"
        ) from error
    if record.preset not in PRESETS:
        raise CourseError(f"{folder / RECORD} names preset {record.preset!r}; known are {', '.join(PRESETS)}")
    return record


def check_same(folder: Path, now: Record) -> None:
    """Raise CourseError, naming what differs, when the run in `folder` can't be gone on with."""
    before = read_record(folder)
    if differing := [name for name in vars(now) if getattr(before, name) != getattr(now, name)]:
        told = "; ".join(f"{name} was {getattr(before, name)} and is {getattr(now, name)}" for name in differing)
        raise CourseError(f"the run in {folder} is another one: {told}. Give it what it had, or leave out --resume")


def load_captioner(folder: Path | str) -> tuple[Captioner, Tokenizer]:
    """The trained model and its tokenizer. Raises CourseError when the folder holds no run, or its files are damaged."""
    folder = Path(folder)
    model = Captioner(PRESETS[read_record(folder).preset])
    return load_weights(model, folder).eval(), load_tokenizer(folder / TOKENIZER)
