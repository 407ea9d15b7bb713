"""Where text and bars stand on a receipt, a menu or a chart, in whole pixels.

A layout distributes the free space of a page at random: text occurs everywhere on a page, and its place reveals
nothing about it. Content that does not fit is refused with the space that it needs.
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

from data.toybox.page.content import draw_different
from data.toybox.page.font import text_width
from data.toybox.scene import COLORS, pick

SHOPS = ("cafe", "deli", "mart", "shop")
TOTAL = "total"
Line = tuple[str, str]
"""A label and a printed amount."""


class Text(NamedTuple):
    """One line of text, with the leftmost column and the topmost row of its first glyph."""

    text: str
    left: int
    top: int


class Rectangle(NamedTuple):
    """A filled rectangle of one of `data.toybox.scene.COLORS`; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int
    color: str


class Frame(NamedTuple):
    """The size of a page and of its text in pixels."""

    width: int
    height: int
    text_size: int

    @property
    def gap(self) -> int:
        """Return the least distance in pixels between two lines of text, and between text and border."""
        return -(-2 * self.text_size // 7)

    def check(self, kind: str, lines: int, width: int, height: int) -> None:
        """Raise ValueError when a page of `lines` entries needs more than the page's width and height."""
        if width > self.width or height > self.height:
            raise ValueError(
                f"a {kind} of {lines} entries with text of {self.text_size} pixels needs {width} × {height} pixels, "
                f"but the page has {self.width} × {self.height}: choose smaller text, fewer entries or digits, "
                "another aspect ratio or a larger area"
            )


class Layout(NamedTuple):
    """The lines of text and the rectangles of a page; rectangles lie below text."""

    texts: tuple[Text, ...]
    rectangles: tuple[Rectangle, ...] = ()


def receipt_layout(frame: Frame, lines: Sequence[Line], total: str, rng: Random) -> Layout:
    """Return a shop's name, the lines with their amounts at the right, a rule and the total.

    On a narrow page the total's amount stands below the word. Raises ValueError when the page is too small.
    """
    text_size, gap = frame.text_size, frame.gap
    inner = frame.width - 2 * gap
    total_rows = 1 if text_width(f"{TOTAL} {total}", text_size) <= inner else 2
    rule = max(1, text_size // 7)
    needed = (1 + len(lines) + total_rows) * (text_size + gap) + rule + 2 * gap
    longest = max((TOTAL, *(f"{label} {amount}" for label, amount in lines)), key=len)
    frame.check("receipt", len(lines), text_width(longest, text_size) + 2 * gap, needed)

    def right_aligned(text: str, top: int) -> Text:
        return Text(text, frame.width - gap - text_width(text, text_size), top)

    # Equal distances, as printers have them: from compact to spread over the whole page.
    free = frame.height - needed
    distance = int(rng.random() * (free // len(lines) + 1))
    top = gap + int(rng.random() * (free - distance * len(lines) + 1))
    shop = pick(rng, SHOPS)
    texts = [Text(shop, (frame.width - text_width(shop, text_size)) // 2, top)]
    for label, amount in lines:
        top += text_size + gap + distance
        texts += [Text(label, gap, top), right_aligned(amount, top)]
    top += text_size + gap
    rectangle = Rectangle(gap, top, frame.width - gap, top + rule, "black")
    top += rule + gap
    texts += [Text(TOTAL, gap, top), right_aligned(total, top + (total_rows - 1) * (gap + text_size))]
    return Layout(tuple(texts), (rectangle,))


def menu_layout(frame: Frame, lines: Sequence[Line], rng: Random) -> Layout:
    """Return each label with its amount after it, in one or more columns. Raises ValueError when the page is too small.

    Every number of columns that fits is equally likely.
    """
    text_size, gap = frame.text_size, frame.gap
    printed = [f"{label} {amount}" for label, amount in lines]
    width, height = max(text_width(text, text_size) for text in printed) + gap, text_size + gap
    inner_width, inner_height = frame.width - gap, frame.height - gap
    fitting = [
        columns
        for columns in range(1, len(lines) + 1)
        if columns * width <= inner_width and -(-len(lines) // columns) * height <= inner_height
    ]
    if not fitting:
        columns = max(1, min(inner_width // width, len(lines)))
        frame.check("menu", len(lines), columns * width + gap, -(-len(lines) // columns) * height + gap)
    columns = pick(rng, fitting)
    cell_width, cell_height = inner_width // columns, inner_height // -(-len(lines) // columns)
    texts = []
    for index, text in enumerate(printed):
        row, column = divmod(index, columns)
        left = gap + column * cell_width + int(rng.random() * (cell_width - width + 1))
        top = gap + row * cell_height + int(rng.random() * (cell_height - height + 1))
        texts.append(Text(text, left, top))
    return Layout(tuple(texts))


def chart_layout(frame: Frame, lines: Sequence[Line], values: Sequence[int], rng: Random) -> Layout:
    """Return bars of different colors, each with its amount above it and its label below.

    A higher bar has a greater value, but heights are not proportional to values: the chart has no axis, and only the
    printed amount tells a value. The first rectangles are the bars, the last one is the base line.
    Raises ValueError when the page is too small.
    """
    text_size, gap = frame.text_size, frame.gap
    count = len(lines)
    widest = max(text_width(text, text_size) for line in lines for text in line)
    # The lowest bar, and the least difference between two: a fifth of the text and 2 pixels.
    lowest, step = max(2, text_size // 5), 2
    needed = 2 * (text_size + 2 * gap) + lowest + step * (count - 1)
    frame.check("chart", count, count * (widest + gap) + gap, needed)
    cell = (frame.width - gap) // count
    base = frame.height - text_size - 2 * gap
    spaces = _divide(rng, frame.height - needed, count + 1)
    heights = [lowest + step * rank + sum(spaces[: rank + 1]) for rank in range(count)]
    colors = draw_different(rng, COLORS, count)
    texts, bars = [], []
    for index, ((label, amount), value) in enumerate(zip(lines, values, strict=True)):
        top = base - heights[sorted(values).index(value)]
        middle = gap + index * cell + (cell - gap) // 2
        half = (cell - gap) // 3
        bars.append(Rectangle(middle - half, top, middle + half + 1, base, colors[index]))
        texts.append(Text(amount, middle - text_width(amount, text_size) // 2, top - gap - text_size))
        texts.append(Text(label, middle - text_width(label, text_size) // 2, base + gap))
    line = Rectangle(gap, base, frame.width - gap, base + max(1, text_size // 7), "black")
    return Layout(tuple(texts), (*bars, line))


def _divide(rng: Random, free: int, parts: int) -> list[int]:
    """Divide `free` pixels into `parts` random whole numbers of pixels."""
    cuts = [0, *sorted(int(rng.random() * (free + 1)) for _ in range(parts - 1)), free]
    return [end - start for start, end in pairwise(cuts)]
