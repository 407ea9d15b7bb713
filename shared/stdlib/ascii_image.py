"""A small picture in characters: the brighter, the denser."""

from collections.abc import Sequence

SHADES = " .:-=+*#%@"


def ascii_image(rows: Sequence[Sequence[float]]) -> list[str]:
    """One line of text for each row of values from 0 up, the greatest of all drawn densest; a value is two characters wide,
    about as wide as a line is high."""
    greatest = max((value for row in rows for value in row), default=0.0)
    scale = (len(SHADES) - 1) / greatest if greatest > 0.0 else 0.0
    return ["".join(2 * SHADES[round(max(value, 0.0) * scale)] for value in row) for row in rows]
