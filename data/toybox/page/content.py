"""The content of printed pages: which labels a page shows, with which values, and how it belongs to a split.

A page's content is a list of entries, each a label and a whole number. All values of a page differ, and so do its
labels; every label and every value is equally frequent. One content belongs to one split, whatever the seed and
whatever the order of its entries, so no page of the test split has the entries of a training page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple
from zlib import crc32

from data.toybox.page.font import check_text_size

# Three letters each, so that the length of a word reveals nothing.
ITEMS = ("tea", "egg", "oil", "jam", "nut", "fig", "pea", "bun", "ham", "cod", "rye", "yam")
"""Labels of receipts and menus."""
BARS = tuple("abcdefghij")
"""Labels of charts."""
KINDS = ("receipt", "menu", "chart")
LABELS = {"receipt": ITEMS, "menu": ITEMS, "chart": BARS}
MAX_LINES, MAX_DIGITS, MAX_ASPECT = 8, 4, 10
MIN_CONTRAST, MAX_GRAIN, MAX_MULTIPLE = 10, 128, 32
_PARTS = 8
_PART_OF = {"test": 0, "validation": 1}


class Entry(NamedTuple):
    """One line of a receipt, one item of a menu or one bar of a chart; prices of three digits or more are in cents."""

    label: str
    value: int


@dataclass(frozen=True)
class PageSetting:
    """Describe the pages of an experiment. Each range is (least, greatest), and everything in it is possible.

    kind       "receipt", "menu" or "chart"
    aspect     range of width / height, between 1/10 and 10
    text_size  range of the height of a glyph in pixels
    lines      range of the number of entries, at most 8; all numbers are equally likely
    digits     digits of a value: 1 for 0 to 9, 2 for 10 to 99, 3 for 100 to 999; at most 4
    area       greatest width × height in pixels: 8,192 pixels are 128 patches of 8 × 8
    multiple   width and height are multiples of this many pixels; it limits how exact the aspect ratio is
    contrast   range of the ink's darkness in percent: 100 is black, 30 is a faded receipt
    grain      greatest change of a pixel's brightness by noise, of 255; 0 for a clean page, at most 128

    Raises ValueError for values outside these limits.
    """

    kind: str
    aspect: tuple[float, float]
    text_size: tuple[int, int] = (7, 8)
    lines: tuple[int, int] = (3, 6)
    digits: int = 1
    area: int = 8_192
    multiple: int = 8
    contrast: tuple[int, int] = (100, 100)
    grain: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no page of kind {self.kind!r}: choose one of {', '.join(KINDS)}")
        if not 1 <= self.lines[0] <= self.lines[1] <= MAX_LINES:
            raise ValueError(f"lines={self.lines}: expected (least, most) with 1 ≤ least ≤ most ≤ {MAX_LINES}")
        if not 1 <= self.digits <= MAX_DIGITS:
            raise ValueError(f"digits={self.digits}: expected 1 to {MAX_DIGITS}")
        if not 1 / MAX_ASPECT <= self.aspect[0] <= self.aspect[1] <= MAX_ASPECT:
            raise ValueError(
                f"aspect={self.aspect}: expected (least, greatest) width / height between 1/{MAX_ASPECT} and "
                f"{MAX_ASPECT}"
            )
        if not self.text_size[0] <= self.text_size[1]:
            raise ValueError(f"text_size={self.text_size}: expected (least, greatest)")
        for text_size in self.text_size:
            check_text_size(text_size)
        if not 256 <= self.area <= 4_000_000:
            raise ValueError(f"area={self.area}: expected 256 to 4,000,000 pixels")
        if not 1 <= self.multiple <= MAX_MULTIPLE:
            raise ValueError(f"multiple={self.multiple}: expected 1 to {MAX_MULTIPLE} pixels")
        if not MIN_CONTRAST <= self.contrast[0] <= self.contrast[1] <= 100:
            raise ValueError(f"contrast={self.contrast}: expected (least, greatest) from {MIN_CONTRAST} to 100 percent")
        if not 0 <= self.grain <= MAX_GRAIN:
            raise ValueError(f"grain={self.grain}: expected 0 (a clean page) to {MAX_GRAIN}")

    @property
    def values(self) -> range:
        """Return the values that an entry can have."""
        return range(10 ** (self.digits - 1) if self.digits > 1 else 0, 10**self.digits)

    @property
    def totals(self) -> range:
        """Return the totals that are possible for every number of lines. Raises ValueError when there is none."""
        fewest, most = self.lines
        # The smallest (largest) different values are consecutive numbers.
        least = most * self.values[0] + most * (most - 1) // 2
        greatest = fewest * self.values[-1] - fewest * (fewest - 1) // 2
        if least > greatest:
            raise ValueError(
                f"no total of {fewest} lines is also one of {most} lines with {self.digits}-digit prices: "
                "choose a narrower range of lines"
            )
        return range(least, greatest + 1)


RECEIPT = PageSetting("receipt", aspect=(1 / 5, 1 / 2))
MENU = PageSetting("menu", aspect=(1 / 5, 5))
CHART = PageSetting("chart", aspect=(2, 5), lines=(3, 5), digits=2)


def draw_entries(rng: Random, split: str, setting: PageSetting, total: int | None = None) -> tuple[Entry, ...]:
    """Return random entries of a split; with `total`, values of that sum. Raises ValueError for an impossible total."""
    if total is not None and total not in setting.totals:
        raise ValueError(
            f"total={total}: {setting.lines[0]} to {setting.lines[1]} {setting.digits}-digit prices have totals "
            f"of {setting.totals[0]} to {setting.totals[-1]}"
        )
    while True:
        count = setting.lines[0] + int(rng.random() * (setting.lines[1] - setting.lines[0] + 1))
        labels = draw_different(rng, LABELS[setting.kind], count)
        values = draw_different(rng, setting.values, count)
        if total is not None:
            _change_total(rng, values, setting.values, total)
        entries = tuple(Entry(label, value) for label, value in zip(labels, values, strict=True))
        if split_of(entries) == split:
            return entries


def draw_different(rng: Random, options: Sequence, count: int) -> list:
    """Return `count` different options in random order."""
    drawn: list = []
    while len(drawn) < count:
        option = options[int(rng.random() * len(options))]
        if option not in drawn:
            drawn.append(option)
    return drawn


def _change_total(rng: Random, values: list[int], possible: range, total: int) -> None:
    """Change random values until they have the sum `total`; they stay possible and different."""
    while (difference := total - sum(values)) != 0:
        index = int(rng.random() * len(values))
        step = 1 + int(rng.random() * abs(difference))
        changed = values[index] + (step if difference > 0 else -step)
        if changed in possible and changed not in values:
            values[index] = changed


def split_of(entries: Sequence[Entry]) -> str:
    """Return the one split that contains pages with these entries: an eighth is "test", an eighth "validation"."""
    part = crc32(" ".join(f"{label} {value}" for label, value in sorted(entries)).encode()) % _PARTS
    return next((split for split, own in _PART_OF.items() if part == own), "train")


def amount(setting: PageSetting, value: int) -> str:
    """Return a value as it is printed: prices of three digits or more with two decimals, other values as they are."""
    return f"{value // 100}.{value % 100:02}" if setting.kind != "chart" and setting.digits > 2 else str(value)
