"""Pages and what to read from them as PyTorch tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from data.toybox.page.content import BARS, ITEMS
from data.toybox.page.image import render_page
from data.toybox.page.pages import Box, Page, character_boxes, label_boxes

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ."
"""The characters that pages print; the class of a character is its index."""
READING_LABELS = (*ITEMS, *BARS)
"""The labels of all kinds of pages, in the order of `reading_targets`."""
ABSENT = -1
"""Target of a label that a page does not have, and of padding; pass it as `ignore_index` of the cross-entropy."""


class PointTargets(NamedTuple):
    """What is to be read at points of pages; pages with fewer points are padded.

    points   x and y as fractions of the page's width and height: whatever size or tiles the page is resized to, a point
             stays at the same fraction
    classes  the class of each character, or each digit of the value of each label; `ABSENT` for padding
    """

    points: Float[Tensor, "pages points 2"]
    classes: Int64[Tensor, "pages points *digits"]


def render_tensors(pages: Sequence[Page]) -> list[UInt8[Tensor, "3 height width"]]:
    """Render each page at its own size, as a uint8 RGB image with channels first."""
    return [torch.from_numpy(render_page(page)).permute(2, 0, 1).contiguous() for page in pages]


def reading_targets(pages: Sequence[Page]) -> Int64[Tensor, "pages labels digits"]:
    """Return the digits of the value beside each of `READING_LABELS`, or `ABSENT` for a label that a page lacks.

    With one digit, this is one classification into ten classes per entry: a model finds the label and reads the value.
    Raises ValueError for no page, or for pages with different numbers of digits.
    """
    targets = torch.full((len(pages), len(READING_LABELS), _digits(pages)), ABSENT, dtype=torch.int64)
    for row, page in enumerate(pages):
        for label, value in page.entries:
            targets[row, READING_LABELS.index(label)] = torch.tensor([int(digit) for digit in str(value)])
    return targets


def entry_targets(pages: Sequence[Page]) -> PointTargets:
    """Return the center of every entry's label and the digits of the value beside it.

    The easier half of `reading_targets`: the place is given, and the value is to be read. Raises the same errors.
    """
    digits = _digits(pages)
    boxes = [label_boxes(page) for page in pages]
    values = [[[int(digit) for digit in str(value)] for _, value in page.entries] for page in pages]
    classes = torch.full((len(pages), max(map(len, values)), digits), ABSENT, dtype=torch.int64)
    for row, digits_of_page in enumerate(values):
        classes[row, : len(digits_of_page)] = torch.tensor(digits_of_page)
    return PointTargets(_centers(pages, boxes), classes)


def character_targets(pages: Sequence[Page]) -> PointTargets:
    """Return the center of every printed character, and its index in `CHARACTERS`.

    About 20 targets per page that need no search, so that a small encoder learns to read within a minute on a CPU.
    Raises ValueError for no page.
    """
    if not pages:
        raise ValueError("no pages: expected at least one")
    characters = [character_boxes(page) for page in pages]
    classes = torch.full((len(pages), max(map(len, characters))), ABSENT, dtype=torch.int64)
    for row, boxes in enumerate(characters):
        classes[row, : len(boxes)] = torch.tensor([CHARACTERS.index(character) for character, _ in boxes])
    return PointTargets(_centers(pages, [[box for _, box in boxes] for boxes in characters]), classes)


def _digits(pages: Sequence[Page]) -> int:
    digits = {page.setting.digits for page in pages}
    if len(digits) != 1:
        raise ValueError(f"pages with values of {sorted(digits)} digits: expected one number of digits")
    return digits.pop()


def _centers(pages: Sequence[Page], boxes: Sequence[Sequence[Box]]) -> Float[Tensor, "pages points 2"]:
    """Return the centers of each page's boxes as fractions of its width and height, padded with zeros."""
    points = torch.zeros(len(pages), max(map(len, boxes)), 2)
    for row, (page, own) in enumerate(zip(pages, boxes, strict=True)):
        corners = torch.tensor(own, dtype=torch.float32).reshape(-1, 2, 2)
        points[row, : len(own)] = corners.mean(1) / torch.tensor([page.width, page.height])
    return points
