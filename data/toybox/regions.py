"""Which object each patch of an image shows, and descriptions of single patches in words.

row 2 column 5: small plain red circle
row 8 column 1: background
"""

from typing import NamedTuple

from data.toybox.language import ATTRIBUTES, describe, words
from data.toybox.scene import WORLD, Scene

BACKGROUND, AMBIGUOUS = -1, -2
"""Values of a patch that shows no object, and of one on an object's border."""
INSIDE = 2
"""Units that the center of a patch must lie inside an object's box for the patch to show this object."""
BACKGROUND_TEXT = "background"


class RegionText(NamedTuple):
    """A patch's place in the image, which is given, and the description of what it shows, which is to be predicted."""

    place: str
    description: str


def patch_objects(scene: Scene, patches: int) -> list[list[int]]:
    """Return for each patch the index of the object that it shows, `BACKGROUND` or `AMBIGUOUS`; rows from the top.

    The image is divided into `patches` × `patches` squares. A patch shows an object when its center lies clearly inside
    the object's box, and is background when it touches no box. Raises ValueError unless the patches divide the world.
    """
    if patches < 1 or WORLD % patches:
        raise ValueError(f"{patches} patches per side: expected a divisor of {WORLD}")
    side = WORLD // patches
    centers = [side * index + side // 2 for index in range(patches)]
    grid = [[BACKGROUND] * patches for _ in range(patches)]
    for index, scene_object in enumerate(scene.objects):
        left, top, right, bottom = scene_object.box
        for row, y in enumerate(centers):
            for column, x in enumerate(centers):
                if left + INSIDE <= x < right - INSIDE and top + INSIDE <= y < bottom - INSIDE:
                    grid[row][column] = index
                elif (
                    left - side // 2 < x < right + side // 2
                    and top - side // 2 < y < bottom + side // 2
                    and grid[row][column] == BACKGROUND
                ):
                    grid[row][column] = AMBIGUOUS
    return grid


def region_text(scene: Scene, grid: list[list[int]], row: int, column: int) -> RegionText:
    """Return the text about the patch in a row and column, both counted from zero, of the grid of `patch_objects`.

    Raises ValueError for an ambiguous patch.
    """
    index = grid[row][column]
    if index == AMBIGUOUS:
        raise ValueError(f"the patch in row {row}, column {column} is on the border of an object: choose another patch")
    description = BACKGROUND_TEXT if index == BACKGROUND else words(describe(scene.objects[index], ATTRIBUTES))
    return RegionText(patch_place(row, column), f" {description}")


def patch_place(row: int, column: int) -> str:
    """Return the words for a patch's place, such as "row 2 column 5:"; both arguments count from zero."""
    return f"row {row + 1} column {column + 1}:"
