"""Score an assistant's captions and answers with the metrics that papers report.

Sources of captions and questions are files of records (records.py), or the data sets "coco:SPLIT" and "vqa:SPLIT".
Records with the same question about the same image are several references for one question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from apps.assistant.assistant import Assistant, make_request
from apps.assistant.records import IMAGE, Record, load_records
from data.datasets.coco_captions import coco_captions
from data.datasets.vqa_v2 import vqa_v2
from shared.evaluation import score_answers, score_captions
from shared.images import open_image
from shared.serving import Message
from shared.tokenizers import Turn

VQA_ANSWERS = 10
"""VQA accuracy compares with ten answers; a single reference counts ten times."""
OPEN_IMAGES = 64
"""Number of images that are open at once."""
SHORT_ANSWER = "Answer the question using a single word or phrase."
"""LLaVA-1.5's instruction for VQA (arXiv:2310.03744, table 1)."""


@dataclass(frozen=True)
class TestItem:
    """Hold one request to the assistant and its reference answers.

    turns          the conversation up to the question
    question_type  "" where the data do not state one
    """

    image: Path | None
    turns: tuple[Turn, ...]
    references: tuple[str, ...]
    question_type: str = ""

    __test__ = False  # not a test of pytest

    @property
    def question(self) -> str:
        """The text of the last turn."""
        return self.turns[-1].text.replace(IMAGE, "").strip()


def items_of_records(records: Sequence[Record]) -> list[TestItem]:
    """Return every answer of the records as one item; answers to equal requests become references of one item."""
    references: dict[tuple[Any, ...], list[str]] = {}
    for record in records:
        for position, turn in enumerate(record.turns):
            if turn.role == "assistant":
                key = (record.image, record.turns[:position], record.question_type)
                references.setdefault(key, []).append(turn.text)
    return [TestItem(image, turns, tuple(texts), kind) for (image, turns, kind), texts in references.items()]


def caption_items(source: str, caption_prompt: str) -> list[TestItem]:
    """Read images with captions from a file of records or "coco:SPLIT". Raises CourseError when it is missing.

    caption_prompt  the request for a caption where the source has none: the one that the assistant was trained with
    """
    if not source.startswith("coco:"):
        return items_of_records(load_records(source, caption_prompt=caption_prompt))
    images = coco_captions(source.removeprefix("coco:"), skip_missing=True)
    return [TestItem(each.file, (Turn("user", f"{IMAGE}\n{caption_prompt}"),), each.captions) for each in images]


def question_items(source: str, caption_prompt: str) -> list[TestItem]:
    """Read questions with answers from a file of records or "vqa:SPLIT". Raises CourseError when it is missing.

    caption_prompt  the prompt of flat records without one
    """
    if not source.startswith("vqa:"):
        return items_of_records(load_records(source, caption_prompt=caption_prompt))
    questions = vqa_v2(source.removeprefix("vqa:"), skip_missing=True)
    return [
        TestItem(
            each.file, (Turn("user", f"{IMAGE}\n{each.question}\n{SHORT_ANSWER}"),), each.answers, each.answer_type
        )
        for each in questions
    ]


def generate_answers(assistant: Assistant, items: Sequence[TestItem], *, max_new_tokens: int, label: str) -> list[str]:
    """Return the assistant's most likely answer to each item."""
    answers: list[str] = []
    chunks = [items[start : start + OPEN_IMAGES] for start in range(0, len(items), OPEN_IMAGES)]
    for chunk in track(chunks, label, console=Console(stderr=True), transient=True):
        requests = [make_request(_messages(item), max_new_tokens=max_new_tokens) for item in chunk]
        answers += assistant.complete(requests)
    return [text.strip() for text in answers]


def _messages(item: TestItem) -> list[Message]:
    images = () if item.image is None else (open_image(item.image),)
    return [
        Message(turn.role, turn.text.replace(IMAGE, "").strip(), images if IMAGE in turn.text else ())
        for turn in item.turns
    ]


def evaluate(
    assistant: Assistant, captions: Sequence[TestItem], questions: Sequence[TestItem], *, max_new_tokens: int = 64
) -> dict[str, dict[str, Any]]:
    """Return scores and answers under "captions" and "questions".

    Captions are scored by BLEU-1 to BLEU-4, CIDEr and ROUGE-L, questions by VQA accuracy, overall and by question type.
    """
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
