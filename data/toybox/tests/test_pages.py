"""Pages: pure functions of split, seed and number; disjoint splits; everything printed lies apart and inside."""

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from data.toybox.heldout import SPLITS
from data.toybox.page.content import (
    BARS,
    CHART,
    ITEMS,
    KINDS,
    LABELS,
    MENU,
    RECEIPT,
    Entry,
    PageSetting,
    draw_entries,
    split_of,
)
from data.toybox.page.pages import character_boxes, make_page, page_at
from data.toybox.page.raster import rasterize_page
from data.toybox.scene import stream
from data.toybox.tests.test_scene import run

SETTINGS = {setting.kind: setting for setting in (RECEIPT, MENU, CHART)}
# A hash over pages, their pixels and questions. A change makes measurements on pages outdated: measure them again.
GOLDEN = "c5ef93942d6246564c9c79ecfffd489406e7bc11cb56b0b3d08f692eca687d66"
GOLDEN_PROGRAM = """
import hashlib
from dataclasses import replace
from data.toybox.heldout import SPLITS
from data.toybox.page.content import CHART, MENU, RECEIPT
from data.toybox.page.pages import page_at
from data.toybox.page.questions import question_at
from data.toybox.page.raster import rasterize_page
digest = hashlib.sha256()
for setting in (RECEIPT, MENU, CHART):
    for split in SPLITS:
        for number in range(40):
            page, question = question_at(split, 7, number, setting)
            digest.update(repr((tuple(page)[1:], tuple(question))).encode())
        digest.update(rasterize_page(page_at(split, 7, 3, replace(setting, contrast=(30, 90), grain=40))))
print(digest.hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_pages_are_equal_everywhere_with_nothing_installed(hash_seed):
    assert run(GOLDEN_PROGRAM, hash_seed) == GOLDEN


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_a_pure_function_of_split_seed_and_number(kind):
    pages = [page_at("train", 5, number, SETTINGS[kind]) for number in range(100)]
    assert [page_at("train", 5, number, SETTINGS[kind]) for number in reversed(range(100))] == pages[::-1]
    assert len({repr(page) for page in pages}) == 100
    assert not set(pages) & {page_at("train", 6, number, SETTINGS[kind]) for number in range(100)}


def contents(split: str, seed: int, setting: PageSetting, count: int) -> set:
    return {frozenset(page_at(split, seed, number, setting).entries) for number in range(count)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_content_is_in_two_splits_whatever_the_seeds(kind):
    """With one line there are few contents, so pages of different seeds would often share one."""
    one_line = replace(SETTINGS[kind], lines=(1, 1), digits=1)
    for setting in (SETTINGS[kind], one_line):
        of_split = {split: contents(split, seed, setting, 400) for seed, split in enumerate(SPLITS)}
        for first, second in combinations(SPLITS, 2):
            assert not of_split[first] & of_split[second]
    assert contents("test", 0, one_line, 400) & contents("test", 1, one_line, 400), "the check above can fail"
    assert len(contents("test", 0, one_line, 400)) > 5


def test_the_order_of_the_entries_does_not_change_the_split():
    entries = [Entry("tea", 3), Entry("egg", 7), Entry("oil", 1)]
    assert len({split_of(order) for order in (entries, entries[::-1], entries[1:] + entries[:1])}) == 1
    splits = Counter(split_of([Entry(label, value)]) for label in ITEMS + BARS for value in range(100))
    assert set(splits) == set(SPLITS) and 0.7 < splits["train"] / splits.total() < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_labels_values_and_numbers_of_lines_are_equally_frequent(kind):
    setting = replace(SETTINGS[kind], digits=1)
    pages = [page_at("train", 1, number, setting).entries for number in range(3000)]
    entries = [entry for page in pages for entry in page]
    least, most = setting.lines
    for values, possible in (
        ([label for label, _ in entries], LABELS[kind]),
        ([value for _, value in entries], setting.values),
        ([len(page) for page in pages], range(least, most + 1)),
    ):
        counts = Counter(values)
        assert set(counts) == set(possible)
        assert all(0.88 < counts[value] * len(possible) / len(values) < 1.12 for value in possible), counts
    for page in pages:
        assert len({label for label, _ in page}) == len({value for _, value in page}) == len(page)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_page_can_be_drawn_with_another_text_size_and_aspect_ratio(kind):
    setting = SETTINGS[kind]
    middle = sum(setting.aspect) / 2
    other = replace(setting, aspect=(middle, middle), text_size=(7, 7), area=20_000, multiple=1, grain=9)
    for number in range(20):
        first, second = page_at("train", 2, number, setting), page_at("train", 2, number, other)
        assert first.entries == second.entries and first.paper == second.paper
        assert second.text_size == 7 and second.width * second.height > 1.1 * first.width * first.height
        assert abs(second.width / second.height / middle - 1) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_its_area_and_an_aspect_ratio_in_the_range(kind):
    setting = replace(SETTINGS[kind], multiple=1)
    pages = [page_at("train", 3, number, setting) for number in range(300)]
    least, greatest = setting.aspect
    for page in pages:
        assert 0.97 * setting.area < page.width * page.height <= setting.area
        assert 0.97 * least < page.width / page.height < 1.03 * greatest
    ratios = sorted(page.width / page.height for page in pages)
    assert ratios[0] < 1.1 * least and ratios[-1] > 0.9 * greatest
    assert {page.text_size for page in pages} == {7, 8}
    if kind == "menu":
        assert 100 < sum(ratio < 1 for ratio in ratios) < 200, "tall and wide pages are equally frequent"


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_consists_of_whole_patches(kind):
    setting = SETTINGS[kind]
    for number in range(200):
        page = page_at("train", 3, number, setting)
        assert page.width % 8 == page.height % 8 == 0
        assert 0.8 * 128 < page.width * page.height / 64 <= 128
        assert setting.aspect[0] <= page.width / page.height <= setting.aspect[1]
    square = page_at("train", 0, 0, replace(MENU, aspect=(1, 1), multiple=32, area=9_000))
    assert (square.width, square.height) == (96, 64)


def overlap(a, b, gap: int = 0) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{}, {"text_size": (5, 5)}, {"digits": 3, "area": 40_000, "lines": (1, 8)}])
def test_everything_lies_inside_the_page_and_apart(kind, changes):
    for number in range(60):
        page = page_at("train", 4, number, replace(SETTINGS[kind], **changes))
        boxes = [box for _, box in character_boxes(page)] + [rectangle[:4] for rectangle in page.rectangles]
        for left, top, right, bottom in boxes:
            assert 1 <= left < right <= page.width - 1 and 1 <= top < bottom <= page.height - 1
        # The base line of a chart touches its bars.
        for a, b in combinations(boxes[:-1] if kind == "chart" else boxes, 2):
            assert not overlap(a, b), (page, a, b)


def test_what_is_printed_is_what_the_page_holds():
    receipt, chart = page_at("train", 0, 3, RECEIPT), page_at("train", 0, 3, CHART)
    menu = page_at("train", 0, 3, replace(MENU, digits=3, area=30_000))
    for page in (receipt, menu, chart):
        printed = " ".join(text.text for text in page.texts)
        assert all(entry.label in printed and page.amount(entry.value) in printed for entry in page.entries)
    assert receipt.texts[-2].text == "total" and receipt.texts[-1].text == str(receipt.total)
    assert [text.text for text in menu.texts] == [f"{label} {v // 100}.{v % 100:02}" for label, v in menu.entries]
    assert chart.amount(52) == "52" and menu.amount(305) == "3.05" and menu.amount(1230) == "12.30"


def test_the_total_stands_beside_the_word_where_there_is_space():
    narrow, wide = (page_at("train", 0, 3, replace(RECEIPT, aspect=(a, a))) for a in (0.2, 0.5))
    assert narrow.texts[-1].top > narrow.texts[-2].top + 7 and wide.texts[-1].top == wide.texts[-2].top


def test_the_bars_of_a_chart_have_the_order_of_their_values_and_different_colors():
    for number in range(100):
        page = page_at("train", 5, number, CHART)
        bars = page.rectangles[: len(page.entries)]
        heights = [bar.bottom - bar.top for bar in bars]
        by_value = sorted(range(len(bars)), key=lambda index: page.entries[index].value)
        assert sorted(range(len(bars)), key=lambda index: heights[index]) == by_value
        assert min(b - a for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False)) >= 2
        assert len({bar.color for bar in bars}) == len(bars)


def test_the_values_can_have_a_chosen_total():
    for setting in (RECEIPT, replace(RECEIPT, digits=3, area=40_000), replace(RECEIPT, lines=(2, 2))):
        for total in (setting.totals[0], setting.totals[-1], setting.totals[len(setting.totals) // 2]):
            page = make_page(stream(0, total, 99), "validation", setting, total)
            assert page.total == total and split_of(page.entries) == "validation"
            assert len(set(page.entries)) == len({value for _, value in page.entries}) == len(page.entries)
            assert all(value in setting.values for _, value in page.entries)
    with pytest.raises(ValueError, match=r"total=14: 3 to 6 1-digit prices have totals of 15 to 24"):
        draw_entries(stream(0, 0), "train", RECEIPT, 14)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "poster"}, "no page of kind 'poster': choose one of receipt, menu, chart"),
        ({"lines": (0, 3)}, r"lines=\(0, 3\): expected \(least, most\) with 1 ≤ least ≤ most ≤ 8"),
        ({"lines": (3, 9)}, "most ≤ 8"),
        ({"lines": (4, 3)}, "least ≤ most"),
        ({"digits": 0}, "digits=0: expected 1 to 4"),
        ({"aspect": (0.01, 0.01)}, r"aspect=\(0.01, 0.01\): expected .* between 1/10 and 10"),
        ({"aspect": (100, 100)}, "between 1/10 and 10"),
        ({"aspect": (5, 2)}, "expected .least, greatest."),
        ({"text_size": (1, 7)}, "text of 1 pixels: expected a height of 5 to 64 pixels"),
        ({"text_size": (9, 7)}, r"text_size=\(9, 7\): expected \(least, greatest\)"),
        ({"area": 10}, "area=10: expected 256"),
        ({"multiple": 0}, "multiple=0: expected 1 to 32 pixels"),
        ({"contrast": (5, 50)}, r"contrast=\(5, 50\): expected \(least, greatest\) from 10 to 100 percent"),
        ({"contrast": (60, 50)}, "contrast="),
        ({"grain": 200}, r"grain=200: expected 0 \(a clean page\) to 128"),
    ],
)
def test_settings_outside_the_limits_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RECEIPT, **changes)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'dev': choose one of train, validation, test"):
        page_at("dev", 0, 0, RECEIPT)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (replace(RECEIPT, text_size=(20, 20)), "a receipt of . entries with text of 20 pixels needs .* choose smaller"),
        (replace(MENU, text_size=(30, 30), aspect=(0.2, 0.2)), "a menu of . entries with text of 30 pixels needs"),
        (replace(MENU, text_size=(30, 30), aspect=(5, 5)), "a menu of . entries with text of 30 pixels needs"),
        (replace(CHART, aspect=(10, 10), area=2_000), r"a chart of . entries .* but the page has 1.. × \d+"),
    ],
)
def test_content_that_does_not_fit_is_refused_with_the_space_that_it_needs(setting, message):
    with pytest.raises(ValueError, match=message):
        page_at("train", 0, 0, setting)


def test_ranges_of_lines_without_a_common_total_are_named():
    assert RECEIPT.totals == range(15, 25) and len(replace(RECEIPT, lines=(2, 6)).totals) == 3
    with pytest.raises(ValueError, match="no total of 1 lines is also one of 8 lines with 1-digit prices"):
        _ = replace(RECEIPT, lines=(1, 8)).totals


@pytest.mark.parametrize("kind", KINDS)
def test_the_extremes_of_the_default_settings_fit(kind):
    setting = SETTINGS[kind]
    most = (setting.lines[1], setting.lines[1])
    for ratio in setting.aspect:
        for number in range(30):
            page_at("train", 0, number, replace(setting, aspect=(ratio, ratio), text_size=(8, 8), lines=most))


def test_noise_changes_every_part_of_a_page_by_at_most_the_grain():
    clean, noisy = (page_at("train", 0, 1, replace(MENU, grain=grain)) for grain in (0, 20))
    changes = [b - a for a, b in zip(rasterize_page(clean), rasterize_page(noisy), strict=True)]
    assert max(changes) <= 20 and min(changes) == -20
    third = len(changes) // 3
    assert all(len(set(changes[start : start + third])) > 20 for start in (0, third, 2 * third))
    other = page_at("train", 0, 2, replace(MENU, grain=20))
    assert hashlib.sha256(rasterize_page(other)).digest() != hashlib.sha256(rasterize_page(noisy)).digest()
