"""Images and labels of many scenes as arrays."""

from typing import NamedTuple

import numpy as np

from data.toybox.heldout import scene_at
from data.toybox.image import render_images
from data.toybox.scene import COLORS, PLACES, SHAPES, SIZES, TEXTURES, Scene

# The value of each label index: labels["color"] == 2 is LABELS["color"][2], yellow.
LABELS = {"shape": SHAPES, "color": COLORS, "size": SIZES, "texture": TEXTURES, "place": PLACES}
_NUMBER = {name: {value: number for number, value in enumerate(values)} for name, values in LABELS.items()}


class Batch(NamedTuple):
    """Scenes, their images and the labels of their objects.

    images  uint8 RGB [scenes, height, width, 3]
    labels  for each of `LABELS` int64 [scenes, greatest number of objects], objects in reading order, then −1
    """

    scenes: list[Scene]
    images: np.ndarray
    labels: dict[str, np.ndarray]


def batch(split: str, seed: int, first: int, last: int, *, size: int = 64, objects: tuple[int, int] = (1, 5)) -> Batch:
    """Return scenes first … last − 1 of a split, `size` pixels wide, with `objects` (least, greatest) objects each.

    Raises ValueError when last is not above first, or for what `scene_at` and `render_images` refuse.
    """
    if last <= first:
        raise ValueError(f"scenes {first} to {last}: expected last above first, the scenes are [first, last)")
    scenes = [scene_at(split, seed, number, objects) for number in range(first, last)]
    labels = {name: np.full((len(scenes), objects[1]), -1, np.int64) for name in LABELS}
    for row, scene in enumerate(scenes):
        for column, scene_object in enumerate(scene.objects):
            for name, numbers in _NUMBER.items():
                labels[name][row, column] = numbers[getattr(scene_object, name)]
    return Batch(scenes, render_images(scenes, size), labels)
