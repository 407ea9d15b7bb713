"""Score an assistant's captions and answers with the metrics that papers report.

Sources of captions and questions are files of records (records.py), or the data sets "coco:SPLIT" and "vqa:SPLIT".
Records with the same question about the same image are several references for one question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from apps.assistant.assistant import Assistant, make_request
from apps.assistant.record_checks import RecordRules
from apps.assistant.records import IMAGE, Record, load_records
from data.datasets.coco_captions import coco_captions
from data.datasets.vqa_v2 import vqa_v2
from shared.errors import CourseError
from shared.evaluation import score_answers, score_captions
from shared.images import open_image
from shared.serving import Message
from shared.tokenizers import Turn

VQA_ANSWERS = 10
"""VQA accuracy compares with ten answers; a single reference counts ten times."""
SEVERAL_ANSWERS = RecordRules(several_answers=True)
"""In a test file, several answers to one question are its references."""
SHOWN_ERRORS = 20
OPEN_IMAGES = 64
"""Number of images that are open at once."""
SHORT_ANSWER = "Answer the question using a single word or phrase."
"""LLaVA-1.5's instruction for VQA (arXiv:2310.03744, table 1)."""


@dataclass(frozen=True)
class TestItem:
    """Hold one request to the assistant and its reference answers.

    turns          the conversation up to the question
    question_type  "" where the data do not state one
    index          of its first record, from 0; in COCO and VQAv2 its own
    """

    image: Path | None
    turns: tuple[Turn, ...]
    references: tuple[str, ...]
    question_type: str = ""
    index: int = 0

    __test__ = False  # not a test of pytest

    @property
    def question(self) -> str:
        """The text of the last turn."""
        return self.turns[-1].text.replace(IMAGE, "").strip()


def items_of_records(records: Sequence[Record]) -> list[TestItem]:
    """Return every answer of the records as one item; answers to equal requests become references of one item."""
    references: dict[tuple[Any, ...], list[str]] = {}
    first_index: dict[tuple[Any, ...], int] = {}
    for index, record in enumerate(records):
        for position, turn in enumerate(record.turns):
            if turn.role == "assistant":
                key = (record.image, record.turns[:position], record.question_type)
                references.setdefault(key, []).append(turn.text)
                first_index.setdefault(key, index)
    return [TestItem(*key[:2], tuple(texts), key[2], first_index[key]) for key, texts in references.items()]


def caption_items(source: str, caption_prompt: str, rules: RecordRules = SEVERAL_ANSWERS) -> list[TestItem]:
    """Read images with captions from a file of records or "coco:SPLIT". Raises CourseError when it is missing.

    caption_prompt  the request for a caption where the source has none: the one that the assistant was trained with
    rules           what a file of records may hold
    """
    if not source.startswith("coco:"):
        return items_of_records(load_records(source, rules=rules, caption_prompt=caption_prompt))
    images = coco_captions(source.removeprefix("coco:"), skip_missing=True)
    turns = (Turn("user", f"{IMAGE}\n{caption_prompt}"),)
    return [TestItem(each.file, turns, each.captions, index=index) for index, each in enumerate(images)]


def question_items(source: str, caption_prompt: str, rules: RecordRules = SEVERAL_ANSWERS) -> list[TestItem]:
    """Read questions with answers from a file of records or "vqa:SPLIT". Raises CourseError when it is missing.

    caption_prompt  the prompt of flat records without one
    rules           what a file of records may hold
    """
    if not source.startswith("vqa:"):
        return items_of_records(load_records(source, rules=rules, caption_prompt=caption_prompt))
    questions = vqa_v2(source.removeprefix("vqa:"), skip_missing=True)
    return [
        TestItem(
            each.file,
            (Turn("user", f"{IMAGE}\n{each.question}\n{SHORT_ANSWER}"),),
            each.answers,
            each.answer_type,
            index,
        )
        for index, each in enumerate(questions)
    ]


def check_prompts(assistant: Assistant, items: Sequence[TestItem], label: str) -> None:
    """Raise CourseError, which names the first records, when prompts leave no token of the context for an answer."""
    limit = assistant.context_length
    blank = Image.new("RGB", (1, 1))  # every image has the same number of tokens
    lengths = [
        (item.index, assistant.count_tokens(make_request(_messages(item, item.image and blank)))) for item in items
    ]
    too_long = [f"  {index}: a prompt of {length:,} tokens" for index, length in lengths if length >= limit]
    if too_long:
        more = [f"  … and {len(too_long) - SHOWN_ERRORS:,} more"] if len(too_long) > SHOWN_ERRORS else []
        raise CourseError(
            f"{label}: {len(too_long):,} of {len(items):,} prompts do not fit into the context of {limit:,} tokens, "
            "which also holds the answer; shorten them or leave them out\n" + "\n".join(too_long[:SHOWN_ERRORS] + more)
        )


def generate_answers(assistant: Assistant, items: Sequence[TestItem], *, max_new_tokens: int, label: str) -> list[str]:
    """Return the assistant's most likely answer to each item."""
    answers: list[str] = []
    chunks = [items[start : start + OPEN_IMAGES] for start in range(0, len(items), OPEN_IMAGES)]
    for chunk in track(chunks, label, console=Console(stderr=True), transient=True):
        requests = [
            make_request(_messages(item, item.image and open_image(item.image)), max_new_tokens=max_new_tokens)
            for item in chunk
        ]
        answers += assistant.complete(requests)
    return [text.strip() for text in answers]


def _messages(item: TestItem, image: Image.Image | None) -> list[Message]:
    images = () if image is None else (image,)
    return [
        Message(turn.role, turn.text.replace(IMAGE, "").strip(), images if IMAGE in turn.text else ())
        for turn in item.turns
    ]


def evaluate(
    assistant: Assistant, captions: Sequence[TestItem], questions: Sequence[TestItem], *, max_new_tokens: int = 64
) -> dict[str, dict[str, Any]]:
    """Return scores and answers under "captions" and "questions".

    Captions are scored by BLEU-1 to BLEU-4, CIDEr and ROUGE-L, questions by VQA accuracy, overall and by question type.
    Raises CourseError as `check_prompts` does, before anything is generated.
    """
    for label, items in (("captions", captions), ("questions", questions)):
        check_prompts(assistant, items, label)
    results: dict[str, dict[str, Any]] = {}
    if captions:
        texts = generate_answers(assistant, captions, max_new_tokens=max_new_tokens, label="captions")
        scores = score_captions(dict(enumerate(texts)), {row: each.references for row, each in enumerate(captions)})
        results["captions"] = _result(captions, texts, scores)
    if questions:
        texts = generate_answers(assistant, questions, max_new_tokens=max_new_tokens, label="questions")
        references = {
            row: each.references * (VQA_ANSWERS if len(each.references) == 1 else 1)
            for row, each in enumerate(questions)
        }
        types = {row: each.question_type for row, each in enumerate(questions)}
        scores = score_answers(dict(enumerate(texts)), references, types if any(types.values()) else None)
        results["questions"] = _result(questions, texts, scores)
    return results


def _result(items: Sequence[TestItem], texts: Sequence[str], scores: dict[str, float]) -> dict[str, Any]:
    answers = [
        {
            "image": item.image and str(item.image),
            "question": item.question,
            "answer": text,
            "references": list(item.references),
        }
        for item, text in zip(items, texts, strict=True)
    ]
    return {"count": len(items), "scores": scores, "answers": answers}
