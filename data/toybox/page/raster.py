"""Pages as pixels, computed in integers with the standard library only; `data.toybox.page.image` does it with numpy."""

from random import Random

from data.toybox.page.font import FULL, advance, glyph
from data.toybox.page.pages import Page
from data.toybox.raster import INK, PAPER

TEXT_INK = INK["black"]


def rasterize_page(page: Page) -> bytes:
    """Render a page: height × width pixels of red, green and blue bytes, row by row."""
    pixels = bytearray(bytes(PAPER[page.paper]) * (page.width * page.height))
    for left, top, right, bottom, color in page.rectangles:
        for row in range(top, bottom):
            start = 3 * (row * page.width + left)
            pixels[start : start + 3 * (right - left)] = bytes(INK[color]) * (right - left)
    for text in page.texts:
        for index, character in enumerate(text.text):
            _draw_glyph(pixels, page, character, text.left + index * advance(page.text_size), text.top)
    if page.setting.grain:
        _add_noise(pixels, page)
    return bytes(pixels)


def noise(page: Page) -> bytes:
    """Return one random byte per pixel of the page, equal on every machine."""
    return Random(page.noise_seed).randbytes(page.width * page.height)


def _add_noise(pixels: bytearray, page: Page) -> None:
    """Change each pixel's brightness by −grain … grain, uniformly distributed."""
    for index, byte in enumerate(noise(page)):
        change = (byte - 128) * page.setting.grain >> 7
        for at in range(3 * index, 3 * index + 3):
            pixels[at] = min(max(pixels[at] + change, 0), 255)


def _draw_glyph(pixels: bytearray, page: Page, character: str, left: int, top: int) -> None:
    """Blend the ink over the pixels in proportion to the glyph's coverage; half of `FULL` rounds to the nearest."""
    width, height, coverage = glyph(character, page.text_size)
    for row in range(height):
        start = 3 * ((top + row) * page.width + left)
        for column in range(width):
            ink_weight = coverage[row * width + column] * page.contrast // 100
            for channel in range(3):
                at = start + 3 * column + channel
                pixels[at] = ((FULL - ink_weight) * pixels[at] + ink_weight * TEXT_INK[channel] + FULL // 2) // FULL
