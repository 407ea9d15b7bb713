"""Pages as pixels: numpy and the stdlib give equal bytes, and every character is readable at every text size."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from data.toybox.page.content import BARS, CHART, ITEMS, KINDS, MENU, RECEIPT
from data.toybox.page.font import COLUMNS, FULL, GLYPHS, ROWS, SMALLEST, advance, glyph, text_width
from data.toybox.page.image import render_page
from data.toybox.page.pages import character_boxes, label_boxes, page_at
from data.toybox.page.raster import TEXT_INK, rasterize_page
from data.toybox.page.tensors import (
    ABSENT,
    CHARACTERS,
    READING_LABELS,
    character_targets,
    entry_targets,
    reading_targets,
    render_tensors,
)
from data.toybox.raster import INK, PAPER

SETTINGS = {setting.kind: setting for setting in (RECEIPT, MENU, CHART)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("text_size", "contrast", "grain"), [(5, 100, 0), (7, 33, 100), (11, 90, 13), (14, 100, 128)])
def test_numpy_equals_the_stdlib_byte_for_byte(kind, text_size, contrast, grain):
    sizes = {"text_size": (text_size, text_size), "contrast": (contrast, contrast), "area": 30_000}
    setting = replace(SETTINGS[kind], **sizes, grain=grain)
    for number in range(2):
        page = page_at("train", 0, number, setting)
        image = render_page(page)
        assert image.shape == (page.height, page.width, 3) and image.dtype == np.uint8
        assert image.tobytes() == rasterize_page(page)


def test_every_glyph_has_all_its_cells():
    for character, cells in GLYPHS.items():
        rows = cells.split("/")
        assert len(rows) == ROWS and {len(row) for row in rows} == {COLUMNS}, character
        assert set(cells) <= set(".#/"), character
        assert (character == " ") == ("#" not in cells)


def pixels(character: str, text_size: int) -> np.ndarray:
    width, height, coverage = glyph(character, text_size)
    return np.array(coverage, float).reshape(height, width)


@pytest.mark.parametrize("text_size", [SMALLEST, 6, 7, 8, 10, 13, 14, 21])
def test_a_glyph_has_the_ink_of_its_cells_at_every_size(text_size):
    for character, cells in GLYPHS.items():
        drawn = pixels(character, text_size)
        assert drawn.shape == (text_size, -(-5 * text_size // 7)) and drawn.max() <= FULL
        expected = FULL * cells.count("#") * (text_size / ROWS) ** 2
        assert abs(drawn.sum() - expected) <= drawn.size / 2
    if text_size % ROWS == 0:
        scale = text_size // ROWS
        cells = np.array([[cell == "#" for cell in row] for row in GLYPHS["R"].split("/")])
        np.testing.assert_array_equal(pixels("R", text_size), FULL * cells.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("text_size", range(SMALLEST, 13))
def test_any_two_characters_differ_at_every_size(text_size):
    for a, b in combinations(GLYPHS, 2):
        difference = np.abs(pixels(a, text_size) - pixels(b, text_size))
        # At least one cell's ink: the smallest difference, between E and F or 5 and 6, has several.
        assert difference.sum() > FULL * (text_size / ROWS) ** 2, (a, b)


def test_characters_stand_apart_and_lowercase_is_drawn_as_capitals():
    for text_size in range(SMALLEST, 30):
        assert advance(text_size) > pixels("0", text_size).shape[1] - 1
        assert text_width("tea 7", text_size) == 4 * advance(text_size) + pixels("0", text_size).shape[1]
    assert text_width("", 7) == 0 and glyph("t", 9) == glyph("T", 9)


def test_wrong_characters_and_text_sizes_are_named():
    with pytest.raises(ValueError, match="the font has no glyph for 'é': it contains  0123"):
        glyph("é", 7)
    for text_size in (1, 4, 65):
        with pytest.raises(ValueError, match=f"text of {text_size} pixels: expected a height of 5 to 64 pixels"):
            glyph("A", text_size)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_boxes_of_characters_and_rectangles_are_drawn(kind):
    for number in range(10):
        page = page_at("train", 1, number, replace(SETTINGS[kind], text_size=(7, 10), area=16_384))
        image = render_page(page)
        drawn = (image != np.array(PAPER[page.paper])).any(-1)
        for left, top, right, bottom in [box for _, box in character_boxes(page)] + [r[:4] for r in page.rectangles]:
            assert drawn[top:bottom, left:right].any()
            drawn[top:bottom, left:right] = False
        assert not drawn.any()
        for left, top, right, bottom, color in page.rectangles:
            assert (image[top:bottom, left:right] == INK[color]).all()


def test_the_pixels_of_a_character_box_show_that_character():
    page = page_at("train", 1, 3, replace(RECEIPT, text_size=(7, 7)))
    image = render_page(page)
    for character, (left, top, right, bottom) in character_boxes(page):
        ink = (image[top:bottom, left:right] == TEXT_INK).all(-1)
        np.testing.assert_array_equal(ink, pixels(character, 7) == FULL)


def test_contrast_is_the_darkness_of_the_ink_on_the_paper():
    changes = {"text_size": (7, 7), "aspect": (1, 1)}
    for contrast in (10, 50, 100):
        page = page_at("train", 1, 3, replace(MENU, **changes, contrast=(contrast, contrast)))
        drawn = np.unique(render_page(page).reshape(-1, 3), axis=0).astype(float)
        paper, ink = np.array(PAPER[page.paper]), np.array(TEXT_INK)
        # Two colors: the paper, and the ink that covers it in part.
        assert len(drawn) == 2 and (drawn[1] == paper).all()
        np.testing.assert_allclose(drawn[0], paper + (ink - paper) * contrast / 100, atol=1.5)
    page_contrasts = {page_at("train", 1, n, replace(MENU, contrast=(40, 42))).contrast for n in range(40)}
    assert page_contrasts == {40, 41, 42}


def test_tensors_hold_the_pages_and_their_digits():
    pages = [page_at("train", 0, n, s) for n in range(3) for s in (RECEIPT, MENU, replace(CHART, digits=1))]
    images = render_tensors(pages)
    for image, page in zip(images, pages, strict=True):
        assert image.dtype == torch.uint8 and image.shape == (3, page.height, page.width)
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), render_page(page))
    targets = reading_targets(pages)
    assert targets.shape == (9, len(ITEMS) + len(BARS), 1) and READING_LABELS == ITEMS + BARS
    for row, page in zip(targets[..., 0].tolist(), pages, strict=True):
        readings = {label: value for label, value in zip(READING_LABELS, row, strict=True) if value != ABSENT}
        assert readings == dict(page.entries)


def test_targets_of_several_digits_have_one_class_per_digit():
    pages = [page_at("train", 0, number, replace(MENU, digits=3, area=30_000)) for number in range(2)]
    targets = reading_targets(pages)
    assert targets.shape == (2, 22, 3)
    label, value = pages[1].entries[0]
    assert (targets[1, READING_LABELS.index(label)] * torch.tensor([100, 10, 1])).sum() == value
    for wrong in ([], [*pages, page_at("train", 0, 0, MENU)]):
        with pytest.raises(ValueError, match="digits: expected one number of digits"):
            reading_targets(wrong)
        with pytest.raises(ValueError, match="digits: expected one number of digits"):
            entry_targets(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_entry_targets_are_the_values_at_the_places_of_their_labels(kind):
    pages = [page_at("train", 3, number, replace(SETTINGS[kind], digits=1)) for number in range(6)]
    points, classes = entry_targets(pages)
    assert classes.shape == (6, max(len(page.entries) for page in pages), 1)
    for row, page in enumerate(pages):
        assert classes[row, : len(page.entries), 0].tolist() == [value for _, value in page.entries]
        assert (classes[row, len(page.entries) :] == ABSENT).all()
        characters = character_boxes(page)
        for (label, _), point, box in zip(page.entries, points[row], label_boxes(page), strict=False):
            x, y = (point * torch.tensor([page.width, page.height])).tolist()
            assert box[0] < x < box[2] and y == pytest.approx((box[1] + box[3]) / 2)
            inside = [
                c for c, (left, top, right, _) in characters if box[0] <= left < right <= box[2] and top == box[1]
            ]
            assert "".join(inside) == label.upper()


def test_character_targets_are_the_printed_characters_at_their_places():
    pages = [page_at("train", 2, 0, MENU), page_at("train", 2, 1, replace(RECEIPT, digits=3, area=30_000))]
    points, classes = character_targets(pages)
    assert points.shape == (2, max(len(character_boxes(page)) for page in pages), 2)
    for row, page in enumerate(pages):
        boxes = character_boxes(page)
        present = classes[row] != ABSENT
        assert present.sum() == len(boxes) and present[: len(boxes)].all()
        assert "".join(CHARACTERS[index] for index in classes[row][present]) == "".join(c for c, _ in boxes)
        for (x, y), (_, (left, top, right, bottom)) in zip(points[row].tolist(), boxes, strict=False):
            assert x * page.width == pytest.approx((left + right) / 2)
            assert y * page.height == pytest.approx((top + bottom) / 2)
    assert (classes[0] == ABSENT).any() and "." in "".join(CHARACTERS[i] for i in classes[1][classes[1] >= 0])
    with pytest.raises(ValueError, match="no pages"):
        character_targets([])
