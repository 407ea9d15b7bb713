"""Printed pages of the toy world: tall receipts, wide charts, and menus of any aspect ratio.

Page number `number` of a split and seed is a pure function of the three and of its `PageSetting`. Its entries depend on
the setting's kind, lines and digits only: the same page can be drawn with another text size or aspect ratio.
"""

from math import isqrt
from random import Random
from typing import NamedTuple

from data.toybox.heldout import SPLITS, check_split
from data.toybox.page.content import KINDS, Entry, PageSetting, amount, draw_entries
from data.toybox.page.font import advance, text_width
from data.toybox.page.layouts import Frame, Rectangle, Text, chart_layout, menu_layout, receipt_layout
from data.toybox.scene import BACKGROUNDS, stream

FIRST_PURPOSE = 64
"""First purpose of `stream` that pages and their questions use; they use 64 to 81."""
Box = tuple[int, int, int, int]


class Page(NamedTuple):
    """One page in whole pixels: what it states, and where its text and its rectangles stand.

    setting     the setting that it was drawn with
    width       columns of pixels
    height      rows of pixels
    text_size   height of a glyph in pixels
    paper       number of its background tint
    contrast    darkness of the text in percent
    noise_seed  seed of the noise of its pixels
    entries     labels and values, in reading order
    texts       the lines of text
    rectangles  of a chart: the bars in the order of the entries, and the base line; of a receipt: the rule
    """

    setting: PageSetting
    width: int
    height: int
    text_size: int
    paper: int
    contrast: int
    noise_seed: int
    entries: tuple[Entry, ...]
    texts: tuple[Text, ...]
    rectangles: tuple[Rectangle, ...]

    @property
    def total(self) -> int:
        """Return the sum of the values, which a receipt prints."""
        return sum(entry.value for entry in self.entries)

    def amount(self, value: int) -> str:
        """Return a value as this page prints it."""
        return amount(self.setting, value)


def page_at(split: str, seed: int, number: int, setting: PageSetting) -> Page:
    """Return page `number` of a split. Raises ValueError for an unknown split, or when the content does not fit."""
    check_split(split)
    purpose = FIRST_PURPOSE + len(SPLITS) * KINDS.index(setting.kind) + SPLITS.index(split)
    return make_page(stream(seed, number, purpose), split, setting)


def make_page(rng: Random, split: str, setting: PageSetting, total: int | None = None) -> Page:
    """Return a random page of a split; with `total`, one whose values have that sum.

    Raises ValueError when the content does not fit on the page, or for an impossible total.
    """
    entries = draw_entries(rng, split, setting, total)
    paper, noise_seed = int(rng.random() * BACKGROUNDS), int(rng.random() * 2**32)
    width, height = _page_size(rng, setting)
    frame = Frame(width, height, _whole_number(rng, setting.text_size))
    contrast = _whole_number(rng, setting.contrast)
    lines = [(label, amount(setting, value)) for label, value in entries]
    values = [value for _, value in entries]
    if setting.kind == "receipt":
        layout = receipt_layout(frame, lines, amount(setting, sum(values)), rng)
    elif setting.kind == "menu":
        layout = menu_layout(frame, lines, rng)
    else:
        layout = chart_layout(frame, lines, values, rng)
    return Page(setting, *frame, paper, contrast, noise_seed, entries, *layout)


def _page_size(rng: Random, setting: PageSetting) -> tuple[int, int]:
    """Draw width and height: half of the pages have a random width in the range, the others a random height.

    So tall and wide pages are equally frequent when the range is symmetric, without a logarithm, whose last bit
    depends on the machine.
    """
    of_width, multiple = rng.random() < 0.5, setting.multiple
    narrowest, widest = (isqrt(int(setting.area * aspect)) for aspect in setting.aspect)
    shortest, tallest = (isqrt(int(setting.area / aspect)) for aspect in reversed(setting.aspect))
    side = _whole_number(rng, (narrowest, widest) if of_width else (shortest, tallest))
    side = max(1, (side + multiple // 2) // multiple) * multiple
    other = max(1, setting.area // side // multiple) * multiple
    return (side, other) if of_width else (other, side)


def _whole_number(rng: Random, limits: tuple[int, int]) -> int:
    """Return a whole number from the least to the greatest, all equally likely."""
    return limits[0] + int(rng.random() * (limits[1] - limits[0] + 1))


def character_boxes(page: Page) -> list[tuple[str, Box]]:
    """Return each printed character, letters as capitals, with its left, top, right and bottom in pixels.

    Right and bottom are exclusive. Characters are in the order of `page.texts`; spaces are left out.
    """
    width, step = text_width("0", page.text_size), advance(page.text_size)
    return [
        (character.upper(), (left, text.top, left + width, text.top + page.text_size))
        for text in page.texts
        for left, character in zip(range(text.left, page.width, step), text.text, strict=False)
        if character != " "
    ]


def label_boxes(page: Page) -> list[Box]:
    """Return left, top, right and bottom in pixels of each entry's label; right and bottom are exclusive."""
    places = {text.text.split()[0]: text for text in page.texts}
    boxes = []
    for label, _ in page.entries:
        _, left, top = places[label]
        boxes.append((left, top, left + text_width(label, page.text_size), top + page.text_size))
    return boxes
