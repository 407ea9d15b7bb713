"""Questions about a page with their answers, balanced so that they cannot be answered without the page.

Labels and values are equally frequent on pages, so the answers are, too. The exception is a receipt's total, whose sum
would most often be a middling one: there the answer is drawn first, and then a receipt that has it.
"""

from collections.abc import Sequence

from data.toybox.heldout import SPLITS, check_split
from data.toybox.page.content import LABELS, PageSetting, amount
from data.toybox.page.pages import FIRST_PURPOSE, Page, make_page
from data.toybox.questions import Question
from data.toybox.scene import COLORS, pick, stream

TEMPLATES = {
    "price": "what does the {label} cost?",
    "item": "what costs {amount}?",
    "total": "what is the total?",
    "items": "how many items are there?",
    "value": "what is the value of {label}?",
    "bar": "which bar has the value {amount}?",
    "bars": "how many bars are there?",
    "highest": "which bar is the highest?",
    "lowest": "which bar is the lowest?",
    "color": "what color is the highest bar?",
}
TYPES_OF = {
    "receipt": ("price", "item", "total", "items"),
    "menu": ("price", "item", "items"),
    "chart": ("value", "bar", "highest", "lowest", "color", "bars"),
}
"""The question types of each kind of page."""
READING_TYPES = ("price", "value")
"""The value of a named entry: with one digit, a classification into ten classes."""
_QUESTION_PURPOSE = FIRST_PURPOSE + len(TYPES_OF) * len(SPLITS)


def question_at(
    split: str, seed: int, number: int, setting: PageSetting, question_type: str | None = None
) -> tuple[Page, Question]:
    """Return question `number` of a split and seed, and its page; of one type, or of all types of the page's kind.

    All answers of a type are equally frequent, and so are all types. Raises ValueError for an unknown split or type, or
    when the content does not fit on the page.
    """
    check_split(split)
    types = TYPES_OF[setting.kind]
    if question_type is not None:
        check_question_type(setting, question_type)
    choice = types.index(question_type) if question_type else len(types)
    # Each split, and each type within it, has its own random numbers: 8 types per kind at most.
    rng = stream(
        seed, 8 * number + choice, _QUESTION_PURPOSE + len(SPLITS) * _kind_index(setting) + SPLITS.index(split)
    )
    question_type = question_type or pick(rng, types)
    total = pick(rng, setting.totals) if question_type == "total" else None
    page = make_page(rng, split, setting, total)
    return page, pick(rng, questions_about(page, question_type))


def _kind_index(setting: PageSetting) -> int:
    return tuple(TYPES_OF).index(setting.kind)


def questions_about(page: Page, question_type: str) -> list[Question]:
    """Return all questions of one type about a page. Raises ValueError for a type that its kind of page does not have.

    Over many pages, the answers of all types but "total" are equally frequent.
    """
    check_question_type(page.setting, question_type)
    amounts = [page.amount(entry.value) for entry in page.entries]
    labels = [entry.label for entry in page.entries]
    if question_type in READING_TYPES:
        pairs = [({"label": label}, printed) for label, printed in zip(labels, amounts, strict=True)]
    elif question_type in ("item", "bar"):
        pairs = [({"amount": printed}, label) for label, printed in zip(labels, amounts, strict=True)]
    else:
        pairs = [({}, _only_answer(page, question_type))]
    template = TEMPLATES[question_type]
    return [Question(question_type, template.format(**words), answer) for words, answer in pairs]


def _only_answer(page: Page, question_type: str) -> str:
    """Return the answer of a type of which a page has one question."""
    if question_type == "total":
        return page.amount(page.total)
    if question_type in ("items", "bars"):
        return str(len(page.entries))
    values = [entry.value for entry in page.entries]
    index = values.index(min(values) if question_type == "lowest" else max(values))
    return page.rectangles[index].color if question_type == "color" else page.entries[index].label


def answers(setting: PageSetting, question_type: str) -> Sequence[str]:
    """Return the answers that a type has on pages of a setting, all equally frequent.

    Raises ValueError for a type that this kind of page does not have.
    """
    check_question_type(setting, question_type)
    if question_type == "color":
        return COLORS
    if question_type in ("items", "bars"):
        return [str(count) for count in range(setting.lines[0], setting.lines[1] + 1)]
    if question_type in ("item", "bar", "highest", "lowest"):
        return LABELS[setting.kind]
    return [amount(setting, value) for value in (setting.totals if question_type == "total" else setting.values)]


def check_question_type(setting: PageSetting, question_type: str) -> None:
    """Raise ValueError for a question type that pages of this kind do not have."""
    types = TYPES_OF[setting.kind]
    if question_type not in types:
        raise ValueError(
            f"a {setting.kind} has no questions of type {question_type!r}: choose one of {', '.join(types)}"
        )
