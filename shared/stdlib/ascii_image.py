"""Draw a small grayscale image in characters: the brighter, the denser."""

from collections.abc import Sequence

CHARACTERS = " .:-=+*#%@"


def ascii_image(rows: Sequence[Sequence[float]]) -> list[str]:
    """Return one line of text per row of values ≥ 0; the largest value of all becomes the densest character.

    rows [height, width] → height lines of 2 · width characters: two characters are about as wide as a line is high.
    """
    largest = max((value for row in rows for value in row), default=0.0)
    scale = (len(CHARACTERS) - 1) / largest if largest > 0.0 else 0.0
    return ["".join(2 * CHARACTERS[round(max(value, 0.0) * scale)] for value in row) for row in rows]
