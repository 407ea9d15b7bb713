"""A bitmap font of 5 × 7 cells, drawn at any text size in integers with the standard library only.

The text size is the height of a glyph in pixels. At 7, 14, 21 … pixels each cell is a whole number of pixels. At every
other size a pixel has the fraction of ink that the cells cover of it, as antialiased text has.
"""

from functools import cache
from typing import NamedTuple

COLUMNS, ROWS = 5, 7
"""Cells of a glyph."""
FULL = 256
"""Coverage of a pixel that lies in the ink entirely."""
SMALLEST, LARGEST = 5, 64
"""Text sizes in pixels. Below 5 pixels the digits 3, 6, 8 and 9 look alike."""

# One string per glyph, rows from the top, separated by slashes.
GLYPHS = {
    " ": "...../...../...../...../...../...../.....",
    "0": "..#../.#.#./#...#/#...#/#...#/.#.#./..#..",
    "1": "..#../.##../#.#../..#../..#../..#../#####",
    "2": ".###./#...#/....#/..##./.#.../#..../#####",
    "3": "#####/....#/...#./..##./....#/#...#/.###.",
    "4": "...#./..##./.#.#./#..#./#####/...#./...#.",
    "5": "#####/#..../####./....#/....#/#...#/.###.",
    "6": "..##./.#.../#..../####./#...#/#...#/.###.",
    "7": "#####/....#/...#./...#./..#../..#../..#..",
    "8": ".###./#...#/#...#/.###./#...#/#...#/.###.",
    "9": ".###./#...#/#...#/.####/....#/...#./.##..",
    "A": "..#../.#.#./#...#/#...#/#####/#...#/#...#",
    "B": "####./#...#/#...#/####./#...#/#...#/####.",
    "C": ".####/#..../#..../#..../#..../#..../.####",
    "D": "####./#...#/#...#/#...#/#...#/#...#/####.",
    "E": "#####/#..../#..../####./#..../#..../#####",
    "F": "#####/#..../#..../####./#..../#..../#....",
    "G": ".####/#..../#..../#..##/#...#/#...#/.####",
    "H": "#...#/#...#/#...#/#####/#...#/#...#/#...#",
    "I": ".###./..#../..#../..#../..#../..#../.###.",
    "J": "..###/...#./...#./...#./...#./#..#./.##..",
    "K": "#...#/#..#./#.#../##.../#.#../#..#./#...#",
    "L": "#..../#..../#..../#..../#..../#..../#####",
    "M": "#...#/##.##/#.#.#/#.#.#/#...#/#...#/#...#",
    "N": "#...#/##..#/##..#/#.#.#/#..##/#..##/#...#",
    "O": ".###./#...#/#...#/#...#/#...#/#...#/.###.",
    "P": "####./#...#/#...#/####./#..../#..../#....",
    "Q": ".###./#...#/#...#/#...#/#.#.#/#..#./.##.#",
    "R": "####./#...#/#...#/####./#.#../#..#./#...#",
    "S": ".####/#..../#..../.###./....#/....#/####.",
    "T": "#####/..#../..#../..#../..#../..#../..#..",
    "U": "#...#/#...#/#...#/#...#/#...#/#...#/.###.",
    "V": "#...#/#...#/#...#/#...#/.#.#./.#.#./..#..",
    "W": "#...#/#...#/#...#/#.#.#/#.#.#/##.##/#...#",
    "X": "#...#/#...#/.#.#./..#../.#.#./#...#/#...#",
    "Y": "#...#/#...#/.#.#./..#../..#../..#../..#..",
    "Z": "#####/....#/...#./..#../.#.../#..../#####",
    ".": "...../...../...../...../...../.##../.##..",
    ",": "...../...../...../...../.##../..#../.#...",
    ":": "...../.##../.##../...../.##../.##../.....",
    "-": "...../...../...../.###./...../...../.....",
    "+": "...../..#../..#../#####/..#../..#../.....",
    "=": "...../...../#####/...../#####/...../.....",
    "/": "....#/....#/...#./..#../.#.../#..../#....",
    "%": "##..#/##..#/...#./..#../.#.../#..##/#..##",
    "(": "...#./..#../.#.../.#.../.#.../..#../...#.",
    ")": ".#.../..#../...#./...#./...#./..#../.#...",
    "!": "..#../..#../..#../..#../..#../...../..#..",
    "?": ".###./#...#/....#/...#./..#../...../..#..",
    "'": "..#../..#../.#.../...../...../...../.....",
    "$": "..#../.####/#.#../.###./..#.#/####./..#..",
    "&": ".##../#..#./#.#../.#.../#.#.#/#..#./.##.#",
}


class Glyph(NamedTuple):
    """One character at one text size: the coverage (0 … `FULL`) of each pixel, row by row."""

    width: int
    height: int
    coverage: tuple[int, ...]


def check_text_size(text_size: int) -> None:
    """Raise ValueError for a text size that no page is drawn with."""
    if not SMALLEST <= text_size <= LARGEST:
        raise ValueError(f"text of {text_size} pixels: expected a height of {SMALLEST} to {LARGEST} pixels")


def advance(text_size: int) -> int:
    """Return the pixels from the left side of one character to that of the next."""
    return -(-(COLUMNS + 1) * text_size // ROWS)


def text_width(text: str, text_size: int) -> int:
    """Return the width of a line of text in pixels, without the gap after its last character; 0 for no text."""
    return (len(text) - 1) * advance(text_size) + _glyph_width(text_size) if text else 0


@cache
def glyph(character: str, text_size: int) -> Glyph:
    """Return a character's pixels; lowercase letters are drawn as capitals.

    Raises ValueError for a text size that is not supported and for a character that the font does not contain.
    """
    check_text_size(text_size)
    cells = GLYPHS.get(character.upper())
    if cells is None:
        raise ValueError(f"the font has no glyph for {character!r}: it contains {''.join(GLYPHS)}")
    rows, width = cells.split("/"), _glyph_width(text_size)
    across, down = _overlaps(COLUMNS, width, text_size), _overlaps(ROWS, text_size, text_size)
    coverage = []
    for row_overlaps in down:
        for column_overlaps in across:
            ink = sum(
                height * breadth
                for row, height in row_overlaps
                for column, breadth in column_overlaps
                if rows[row][column] == "#"
            )
            # A pixel is 7 × 7 units large; adding half of 49 rounds to the nearest integer.
            coverage.append((FULL * ink + ROWS * ROWS // 2) // (ROWS * ROWS))
    return Glyph(width, text_size, tuple(coverage))


def _glyph_width(text_size: int) -> int:
    return -(-COLUMNS * text_size // ROWS)


def _overlaps(cells: int, pixels: int, text_size: int) -> list[list[tuple[int, int]]]:
    """Return for each pixel the cells that it touches and by how much, in sevenths of a pixel.

    In this unit a pixel is 7 long and a cell `text_size`, so every overlap is a whole number.
    """
    return [
        [
            (cell, overlap)
            for cell in range(cells)
            if (overlap := min(ROWS * (pixel + 1), text_size * (cell + 1)) - max(ROWS * pixel, text_size * cell)) > 0
        ]
        for pixel in range(pixels)
    ]
