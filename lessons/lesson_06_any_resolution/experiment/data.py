"""Training and evaluation data: noisy receipts, charts and menus, and what to read at points of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.page.content import CHART, MENU, RECEIPT, PageSetting
from data.toybox.page.pages import Page, page_at
from data.toybox.page.tensors import ABSENT, character_targets, render_tensors
from data.toybox.tensors import normalize_pixels
from lessons.lesson_06_any_resolution.experiment.resizing import PageInput, Resizing, resize_page
from lessons.lesson_06_any_resolution.model import PatchBatch, pack

PRINT: dict[str, Any] = {"text_size": (7, 7), "contrast": (80, 80), "grain": 64}
"""Small, slightly faded text on grainy paper. On clean pages, even blurred digits can be told apart."""
SETTINGS = {
    "receipt": replace(RECEIPT, **PRINT),
    "unaligned receipt": replace(RECEIPT, **PRINT, multiple=1),
    "chart": replace(CHART, **PRINT),
    "menu": replace(MENU, **PRINT, aspect=(1 / 2, 2)),
    "tall menu": replace(MENU, **PRINT, aspect=(1 / 5, 1 / 3)),
    "wide menu": replace(MENU, **PRINT, aspect=(3, 5)),
}
"""Settings of pages by their name; only menus between 1:2 and 2:1 are trained on, the other two only tested.

The sides of a page are multiples of a patch, and text on receipts is aligned to both sides. At their own size, such
receipts have all digits at few places within a patch. Unaligned receipts have any size in pixels.
"""
SPLIT_CONTENTS = {"validation": "new pages", "test": "other new pages"}
DIGITS = 10
"""The first classes of `CHARACTERS` are the digits."""


class ReadingBatch(NamedTuple):
    """Pages in packed rows, and what to read on them.

    patches  the pages' images in packed rows
    tokens   index of the token that shows each point, all rows one after another; the most detailed view first
    offsets  row and column of each point relative to the center of that token's patch, in patches
    classes  the character at each point, as an index in `CHARACTERS`
    pages    index of each point's page in the batch
    """

    patches: PatchBatch
    tokens: Int[Tensor, "points views"]
    offsets: Float[Tensor, "points views 2"]
    classes: Int[Tensor, "points"]
    pages: Int[Tensor, "points"]

    def to(self, device: str | torch.device) -> "ReadingBatch":
        """Return the same batch on another device."""
        return ReadingBatch(*(part.to(device) for part in self))

    @property
    def is_digit(self) -> Bool[Tensor, "points"]:
        """Whether a point is a printed digit, and not a letter."""
        return self.classes < DIGITS


@dataclass(frozen=True)
class PageSource:
    """Endless pages of a split in packed rows: `source(index)` is batch number `index`.

    kinds      names in `SETTINGS`, in turns
    resizing   "native", "square" or "anyres"
    budgets    greatest numbers of patches per page, in turns
    area       width × height of a page in pixels; None for that of `SETTINGS`
    """

    split: str
    seed: int
    kinds: Sequence[str]
    resizing: Resizing
    budgets: Sequence[int]
    batch_size: int = 16
    area: int | None = None

    def __call__(self, index: int) -> ReadingBatch:
        numbers = range(index * self.batch_size, (index + 1) * self.batch_size)
        pages = [page_at(self.split, self.seed, number, self.setting(number)) for number in numbers]
        targets = reading_points(pages)
        inputs = []
        for number, image, (points, _) in zip(numbers, render_tensors(pages), targets, strict=True):
            pixels = normalize_pixels(image[None])[0]
            inputs.append(resize_page(pixels, points, self.resizing, self.budget(number)))
        return join(inputs, [classes for _, classes in targets], max(self.budgets))

    def with_budget(self, budget: int) -> "PageSource":
        """Return the same pages with one budget for all."""
        return replace(self, budgets=(budget,))

    def setting(self, number: int) -> PageSetting:
        """Return the setting of page `number`."""
        setting = SETTINGS[self.kinds[number % len(self.kinds)]]
        return setting if self.area is None else replace(setting, area=self.area)

    def budget(self, number: int) -> int:
        """Return the token budget of page `number`: every kind of page has every budget equally often."""
        return self.budgets[number // len(self.kinds) % len(self.budgets)]


def reading_points(pages: Sequence[Page]) -> list[tuple[Float[Tensor, "points 2"], Int[Tensor, "points"]]]:
    """Return the center of every character of each page, as fractions of its sides, and the characters' classes."""
    points, classes = character_targets(pages)
    present = classes != ABSENT
    return [(points[row][present[row]], classes[row][present[row]]) for row in range(len(pages))]


def join(inputs: Sequence[PageInput], classes: Sequence[Int[Tensor, "_"]], row_length: int) -> ReadingBatch:
    """Pack the images of all pages into rows of `row_length` tokens, and find the token of each point."""
    patches = pack([image for page in inputs for image in page.images], row_length)
    counts = torch.tensor([len(page.images) for page in inputs])
    starts = counts.cumsum(0) - counts
    images = torch.cat([page.image_numbers + start for page, start in zip(inputs, starts.tolist(), strict=True)])
    places = torch.cat([page.places for page in inputs])
    pages = torch.repeat_interleave(torch.arange(len(inputs)), torch.tensor([len(each) for each in classes]))
    # A point on the lower or right border belongs to the last patch.
    cells = torch.minimum(places.long(), patches.grids[images] - 1)
    tokens = first_tokens(patches)[images] + cells[..., 0] * patches.grids[images][..., 1] + cells[..., 1]
    return ReadingBatch(patches, tokens, places - cells - 0.5, torch.cat(list(classes)), pages)


def first_tokens(patches: PatchBatch) -> Int[Tensor, "images"]:
    """Return the index of each image's first token, all rows one after another."""
    index = patches.image_index.flatten()
    inside = (index >= 0).nonzero()[:, 0]
    return torch.full((len(patches),), len(index)).scatter_reduce(0, index[inside], inside, "amin")
