"""Prompts as published: their text, and the size of an image that is to be generated (`Emu3Processor`)."""

from lessons.lesson_12_emu3.model.vocabulary import MARKERS, PLACEHOLDER

GENERATED_AREA = 720 * 720
"""Pixels of a generated image, where a prompt does not state another number."""


def size_text(rows: int, columns: int) -> str:
    """Return the text that states the size of an image, in codes: 90*90."""
    return f"{rows}*{columns}"


def generated_size(ratio: str, area: int = GENERATED_AREA, factor: int = 8) -> tuple[int, int]:
    """Return the number of rows and columns of codes for an image of about `area` pixels.

    ratio   width to height, such as "16:9"
    factor  pixels per code along a side

    Raises ValueError for a ratio of another form, and for an area without one code.
    """
    parts = ratio.split(":")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"the ratio is {ratio!r}; expected width and height as whole numbers, such as '16:9'")
    width, height = map(int, parts)
    scale = (area / (width * height)) ** 0.5
    rows, columns = (round(side * scale / factor) for side in (height, width))
    if min(rows, columns) < 1:
        raise ValueError(f"an area of {area} pixels in a ratio of {ratio} has no code per side; give a larger area")
    return rows, columns


def generation_prompt(text: str, rows: int, columns: int) -> str:
    """Return the prompt that an image of this size continues; without text, the prompt without a condition."""
    return f"{MARKERS['bos']}{text}{MARKERS['start']}{size_text(rows, columns)}{MARKERS['tokens']}"


def image_text(rows: int, columns: int) -> str:
    """Return what stands for an image in a prompt, with one placeholder per code and per end of a row."""
    placeholders = PLACEHOLDER * (rows * (columns + 1))
    begin = f"{MARKERS['start']}{size_text(rows, columns)}{MARKERS['tokens']}"
    return f"{begin}{placeholders}{MARKERS['end_of_frame']}{MARKERS['end']}"
