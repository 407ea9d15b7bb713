"""Questions about pages: every answer is recomputed from the printed text, and blind baselines stay near chance."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from data.toybox.heldout import SPLITS
from data.toybox.page.content import CHART, MENU, RECEIPT, PageSetting
from data.toybox.page.font import text_width
from data.toybox.page.pages import Page, page_at
from data.toybox.page.questions import READING_TYPES, TEMPLATES, TYPES_OF, answers, question_at, questions_about
from data.toybox.questions import Question
from data.toybox.tests.blind_baseline import blind, margin

SETTINGS = {
    "receipt": RECEIPT,
    "receipt in cents": replace(RECEIPT, digits=3, area=40_000),
    "menu": MENU,
    "menu of two digits": replace(MENU, digits=2, area=30_000),
    "chart": CHART,
    "chart of one digit": replace(CHART, digits=1),
}
CASES = [(name, question_type) for name, setting in SETTINGS.items() for question_type in TYPES_OF[setting.kind]]


def printed_lines(page: Page) -> dict[str, str]:
    """Return what stands beside each word, from the places of the printed text alone."""
    if page.setting.kind == "menu":
        return dict(text.text.split() for text in page.texts)
    lines = {}
    for text in page.texts:
        if not text.text.isalpha():
            continue
        if page.setting.kind == "receipt":
            # Within the row, or on the next row for a total.
            others = [o for o in page.texts if o != text and 0 <= o.top - text.top < 2 * page.text_size]
            others = [o for o in others if not o.text.isalpha() and (o.top == text.top or text.text == "total")]
        else:
            others = [o for o in page.texts if abs(middle(page, o) - middle(page, text)) <= 1 and o != text]
        if others:
            lines[text.text] = others[0].text
    return lines


def middle(page: Page, text) -> float:
    return text.left + text_width(text.text, page.text_size) / 2


def answer(page: Page, text: str) -> str:
    """Answer a question from the printed text and the bars, by another road than the one that made it."""
    lines = printed_lines(page)
    total = lines.pop("total", None)
    if match := re.fullmatch(r"what does the (\w+) cost\?|what is the value of (\w)\?", text):
        return lines[match[1] or match[2]]
    if match := re.fullmatch(r"(?:what costs|which bar has the value) ([\d.]+)\?", text):
        (label,) = [label for label, printed in lines.items() if printed == match[1]]
        return label
    if text == "what is the total?":
        assert round(sum(map(float, lines.values())), 2) == float(total)
        return total
    if re.fullmatch(r"how many (items|bars) are there\?", text):
        return str(len(lines))
    bars = sorted(page.rectangles[:-1], key=lambda bar: bar.top)
    bar = bars[-1] if "lowest" in text else bars[0]
    if text == "what color is the highest bar?":
        return bar.color
    assert text in ("which bar is the highest?", "which bar is the lowest?")
    labels = [t for t in page.texts if t.text.isalpha() and bar.left <= middle(page, t) <= bar.right]
    by_value = sorted(lines, key=lambda label: float(lines[label]))
    assert labels[0].text == by_value[0 if "lowest" in text else -1]
    return labels[0].text


@pytest.mark.parametrize(("name", "question_type"), CASES)
def test_every_answer_is_right(name, question_type):
    for split in SPLITS:
        for number in range(25):
            page, question = question_at(split, 0, number, SETTINGS[name], question_type)
            assert question.type == question_type and question.answer in answers(SETTINGS[name], question_type)
            assert answer(page, question.text) == question.answer, (question, page)


@pytest.mark.parametrize(("name", "question_type"), CASES)
def test_the_blind_baseline_is_at_chance(name, question_type):
    setting = SETTINGS[name]
    chance = 1 / len(answers(setting, question_type))
    # With many answers chance is near zero, so few guesses suffice.
    guesses = 400 if chance > 0.05 else 150
    questions = [question_at("train", 1, number, setting, question_type)[1] for number in range(3 * guesses)]
    accuracy = blind(questions[guesses:], questions[:guesses])
    assert accuracy < chance + margin(chance, guesses), (accuracy, chance)


def test_the_blind_baseline_would_find_the_middling_totals_of_random_prices():
    """The check above can fail: sums of random prices are not equally frequent."""
    natural = [questions_about(page_at("train", 1, n, replace(RECEIPT, lines=(5, 6))), "total") for n in range(900)]
    counts = Counter(questions[0].answer for questions in natural)
    possible = answers(replace(RECEIPT, lines=(5, 6)), "total")
    assert counts.most_common(1)[0][1] > 1.4 * 900 / len(possible)


def test_answers_of_a_type_are_equally_frequent():
    for setting, question_type in ((RECEIPT, "total"), (MENU, "price"), (CHART, "color"), (CHART, "highest")):
        options = answers(setting, question_type)
        counts = Counter(question_at("train", 2, n, setting, question_type)[1].answer for n in range(900))
        expected = 900 / len(options)
        assert set(counts) == set(options)
        assert all(abs(count - expected) < 4 * expected**0.5 for count in counts.values()), counts


def test_the_order_of_the_bars_reveals_few_values():
    """A guesser that sees which bars are higher, but no digits, scores a few points above blind guesses."""
    by_rank = defaultdict(Counter)
    correct = total = 0
    for number in range(4000):
        values = [entry.value for entry in page_at("train", 3, number, CHART).entries]
        for rank, value in enumerate(sorted(values)):
            counts = by_rank[len(values), rank]
            if number >= 3000:
                correct, total = correct + (counts.most_common(1)[0][0] == value), total + 1
            else:
                counts[value] += 1
    assert correct / total < 0.06


def test_all_types_occur_and_questions_are_pure():
    for setting in (RECEIPT, MENU, CHART):
        types = Counter(question_at("train", 4, number, setting)[1].type for number in range(400))
        assert set(types) == set(TYPES_OF[setting.kind]) and min(types.values()) > 30
        assert question_at("train", 4, 9, setting) == question_at("train", 4, 9, setting)
        assert question_at("train", 4, 9, setting) != question_at("train", 5, 9, setting)
        assert question_at("train", 4, 9, setting)[0] != question_at("validation", 4, 9, setting)[0]
    assert {question_type for types in TYPES_OF.values() for question_type in types} == set(TEMPLATES)


def test_a_page_has_one_question_per_entry_or_one_in_all():
    for setting in (RECEIPT, MENU, CHART):
        page = page_at("test", 0, 5, setting)
        for question_type in TYPES_OF[setting.kind]:
            questions = questions_about(page, question_type)
            per_entry = question_type in (*READING_TYPES, "item", "bar")
            assert len({question.text for question in questions}) == (len(page.entries) if per_entry else 1)
            assert all(isinstance(question, Question) for question in questions)


def test_with_one_digit_reading_is_a_classification_into_ten_classes():
    one_digit: PageSetting = replace(CHART, digits=1)
    assert list(answers(one_digit, "value")) == list(answers(RECEIPT, "price")) == [str(digit) for digit in range(10)]
    assert answers(replace(RECEIPT, digits=3), "price")[0] == "1.00" and answers(CHART, "value")[-1] == "99"


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="a menu has no questions of type 'total': choose one of price, item, items"):
        question_at("train", 0, 0, MENU, "total")
    with pytest.raises(ValueError, match="a chart has no questions of type 'price'"):
        answers(CHART, "price")
    with pytest.raises(ValueError, match="a receipt has no questions of type 'color'"):
        questions_about(page_at("train", 0, 0, RECEIPT), "color")
    with pytest.raises(ValueError, match="no split 'dev'"):
        question_at("dev", 0, 0, MENU)
