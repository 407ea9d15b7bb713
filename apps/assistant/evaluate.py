"""How well an assistant captions and answers, in the measures that papers report.

    python -m apps.assistant.evaluate runs/assistant/debug
    python -m apps.assistant.evaluate FOLDER --captions FILE --questions FILE [--report report.json]
    python -m apps.assistant.evaluate FOLDER --captions coco:val2017 --questions vqa:val2014 --limit 1000

FILE holds records in one of the two formats of records.py. Records that ask the same of the same picture are several people's
answers to one question. Of a run on the toy world its own held-out files are taken when none is given.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from apps.assistant.assistant import Assistant, request
from apps.assistant.pictures import open_picture
from apps.assistant.records import DESCRIBE, IMAGE, Record, load_records
from apps.assistant.train import TOY_WORLD
from data.datasets.coco_captions import coco_captions
from data.datasets.vqa_v2 import vqa_v2
from shared.atomic import write_atomically
from shared.cli import command_line
from shared.errors import CourseError
from shared.evaluation import score_answers, score_captions
from shared.serving.served_model import Message
from shared.tokenizers import Turn

PEOPLE = 10  # VQA accuracy compares with ten answers; a single one counts as said by all of them
AT_ONCE = 64  # pictures held open


@dataclass(frozen=True)
class Asked:
    """What an assistant is asked, and what people have answered.

    before  the turns up to and with the question
    kind    of question, "" where nobody says
    """

    image: Path | None
    before: tuple[Turn, ...]
    answers: tuple[str, ...]
    kind: str = ""


def asked_in(records: Sequence[Record]) -> list[Asked]:
    """Every answer of the records as a question, after all that was said before it; equal questions become one."""
    answers: dict[tuple, list[str]] = {}
    for record in records:
        for place, turn in enumerate(record.turns):
            if turn.role == "assistant":
                answers.setdefault((record.image, record.turns[:place], record.kind), []).append(turn.text)
    return [Asked(image, before, tuple(said), kind) for (image, before, kind), said in answers.items()]


def captions_of(source: str) -> list[Asked]:
    """What is to be captioned: a file of records, or "coco:SPLIT". Raises CourseError when it is not there."""
    if not source.startswith("coco:"):
        return asked_in(load_records(source))
    pictures = coco_captions(source.removeprefix("coco:"), skip_missing=True)
    return [Asked(each.file, (Turn("user", f"{IMAGE}\n{DESCRIBE}"),), each.captions) for each in pictures]


def questions_of(source: str) -> list[Asked]:
    """What is to be answered: a file of records, or "vqa:SPLIT". Raises CourseError when it is not there."""
    if not source.startswith("vqa:"):
        return asked_in(load_records(source))
    questions = vqa_v2(source.removeprefix("vqa:"), skip_missing=True)
    return [
        Asked(each.file, (Turn("user", f"{IMAGE}\n{each.question}\n{SHORT}"),), each.answers, each.answer_type)
        for each in questions
    ]


SHORT = "Answer the question using a single word or phrase."  # LLaVA-1.5's words for it (arXiv:2310.03744, table 1)


def answer(assistant: Assistant, asked: Sequence[Asked], *, max_new_tokens: int, label: str) -> list[str]:
    """What the assistant says to each, the likeliest tokens taken."""
    said: list[str] = []
    chunks = [asked[start : start + AT_ONCE] for start in range(0, len(asked), AT_ONCE)]
    for chunk in track(chunks, label, console=Console(stderr=True), transient=True):
        said += assistant.write([request(_messages(each), max_new_tokens=max_new_tokens) for each in chunk])
    return [text.strip() for text in said]


def _messages(asked: Asked) -> list[Message]:
    picture = () if asked.image is None else (open_picture(asked.image),)
    return [
        Message(turn.role, turn.text.replace(IMAGE, "").strip(), picture if IMAGE in turn.text else ())
        for turn in asked.before
    ]


def evaluate(
    assistant: Assistant, captions: Sequence[Asked], questions: Sequence[Asked], *, max_new_tokens: int = 64
) -> dict[str, dict]:
    """Scores under "captions" (BLEU-1 … 4, CIDEr, ROUGE-L) and "questions" (VQA accuracy, in all and by kind), and what was said."""
    found: dict[str, dict] = {}
    if captions:
        said = answer(assistant, captions, max_new_tokens=max_new_tokens, label="captioning")
        scores = score_captions(dict(enumerate(said)), {row: each.answers for row, each in enumerate(captions)})
        found["captions"] = {"count": len(captions), "scores": scores, "said": _listed(captions, said)}
    if questions:
        said = answer(assistant, questions, max_new_tokens=max_new_tokens, label="answering")
        people = {row: each.answers * (PEOPLE if len(each.answers) == 1 else 1) for row, each in enumerate(questions)}
        kinds = {row: each.kind for row, each in enumerate(questions)}
        scores = score_answers(dict(enumerate(said)), people, kinds if any(kinds.values()) else None)
        found["questions"] = {"count": len(questions), "scores": scores, "said": _listed(questions, said)}
    return found


def _listed(asked: Sequence[Asked], said: Sequence[str]) -> list[dict]:
    return [
        {
            "image": each.image and str(each.image),
            "asked": each.before[-1].text.replace(IMAGE, "").strip(),
            "said": text,
            "expected": list(each.answers),
        }
        for each, text in zip(asked, said, strict=True)
    ]


def model_in(folder: Path) -> Path:
    """The folder of the model itself, where the folder of a run may be given too."""
    return folder / "model" if (folder / "model" / "config.json").exists() else folder


@command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an assistant's folder, or that of the run that made it")
    parser.add_argument("--captions", metavar="FILE", help="pictures with captions, or coco:SPLIT")
    parser.add_argument("--questions", metavar="FILE", help="pictures with questions and answers, or vqa:SPLIT")
    parser.add_argument("--report", type=Path, metavar="FILE", help="left out: evaluation.json in the folder")
    parser.add_argument("--limit", type=int, help="so many of each at most")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    started = time.monotonic()
    captions, questions = asked.captions, asked.questions
    toy = asked.folder / TOY_WORLD
    if not captions and not questions:
        if not toy.is_dir():
            raise CourseError("nothing to evaluate on; give --captions FILE, --questions FILE or both")
        captions, questions = str(toy / "test_captions.json"), str(toy / "test_questions.json")
    assistant = Assistant.from_folder(model_in(asked.folder), device=asked.device)
    found = evaluate(
        assistant,
        captions_of(captions)[: asked.limit] if captions else [],
        questions_of(questions)[: asked.limit] if questions else [],
        max_new_tokens=asked.max_new_tokens,
    )
    report = {"model": str(model_in(asked.folder)), "captions of": captions, "questions of": questions}
    report |= {"seconds": round(time.monotonic() - started, 1)} | found
    file = asked.report or asked.folder / "evaluation.json"
    write_atomically(file, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    for task, result in found.items():
        print(f"{task}: {result['count']:,}")
        for name, score in result["scores"].items():
            print(f"  {name:<20} {score:.3f}")
    print(f"all that was said is in {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
