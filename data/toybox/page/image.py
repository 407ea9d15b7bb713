"""Pages as numpy images: the same pixels as those of `data.toybox.page.raster`, much faster."""

from functools import cache

import numpy as np

from data.toybox.page.font import FULL, advance, glyph
from data.toybox.page.pages import Page
from data.toybox.page.raster import TEXT_INK, noise
from data.toybox.raster import INK, PAPER


@cache
def _glyph(character: str, text_size: int, contrast: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of the background and the added ink of a glyph's pixels [height, width, 3]."""
    width, height, coverage = glyph(character, text_size)
    ink_weight = np.array(coverage, np.int32).reshape(height, width, 1) * contrast // 100
    return FULL - ink_weight, ink_weight * np.array(TEXT_INK, np.int32) + FULL // 2


def render_page(page: Page) -> np.ndarray:
    """Render a page at its own size: uint8 RGB [height, width, 3]."""
    image = np.empty((page.height, page.width, 3), np.uint8)
    image[:] = PAPER[page.paper]
    for left, top, right, bottom, color in page.rectangles:
        image[top:bottom, left:right] = INK[color]
    step = advance(page.text_size)
    for text in page.texts:
        for index, character in enumerate(text.text):
            keep, ink = _glyph(character, page.text_size, page.contrast)
            left = text.left + index * step
            region = image[text.top : text.top + keep.shape[0], left : left + keep.shape[1]]
            region[:] = (keep * region + ink) // FULL
    if page.setting.grain:
        change = (np.frombuffer(noise(page), np.uint8).astype(np.int16) - 128) * page.setting.grain >> 7
        image = np.clip(image + change.reshape(page.height, page.width, 1), 0, 255).astype(np.uint8)
    return image
