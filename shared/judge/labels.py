"""Scenes as labels per place, and the judge's predictions per place as scenes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data.toybox.scene import PLACES, WORLD, Scene, SceneObject
from shared.judge.model import ATTRIBUTES, PlaceLogits

THIRD = WORLD / 3
_NUMBER = {name: {value: number for number, value in enumerate(values)} for name, values in ATTRIBUTES.items()}
# First and last unit of each third of the world: its rows and columns.
_RANGES = [(-(-WORLD * third // 3), (WORLD * (third + 1) - 1) // 3) for third in range(3)]


class PlaceLabels(NamedTuple):
    """The objects of scenes by place.

    presence    1 where an object lies at the place, else 0
    attributes  for each of `ATTRIBUTES` the number of its value, −1 without an object
    center      x and y of the object's center, as in `PlaceLogits`; 0 without an object
    """

    presence: Float[Tensor, "scenes 9"]
    attributes: dict[str, Int64[Tensor, "scenes 9"]]
    center: Float[Tensor, "scenes 9 2"]


def _place_center(place: int) -> tuple[float, float]:
    row, column = divmod(place, 3)
    return (column + 0.5) * THIRD, (row + 0.5) * THIRD


def label_scenes(scenes: Sequence[Scene]) -> PlaceLabels:
    """Return the labels of scenes. Raises ValueError when two objects of a scene lie at one place."""
    presence = torch.zeros(len(scenes), len(PLACES))
    attributes = {name: torch.full((len(scenes), len(PLACES)), -1) for name in ATTRIBUTES}
    center = torch.zeros(len(scenes), len(PLACES), 2)
    for row, scene in enumerate(scenes):
        for scene_object in scene.objects:
            place = PLACES.index(scene_object.place)
            if presence[row, place]:
                raise ValueError(f"scene {row} has two objects at the place {scene_object.place!r}; expected one")
            presence[row, place] = 1
            for name, numbers in _NUMBER.items():
                attributes[name][row, place] = numbers[getattr(scene_object, name)]
            x, y = _place_center(place)
            center[row, place] = torch.tensor([scene_object.x - x, scene_object.y - y]) / (THIRD / 2)
    return PlaceLabels(presence, attributes, center)


def scenes_from_logits(logits: PlaceLogits) -> list[Scene]:
    """Return the scene that is predicted for each image; its background is 0, because no background is predicted.

    A place has an object when its presence logit is positive. Its attributes are those of the largest logits. Its
    center is rounded to world units and limited to the place.
    """
    present = (logits.presence > 0).tolist()
    values = {name: each.argmax(dim=-1).tolist() for name, each in logits.attributes.items()}
    centers = logits.center.tolist()
    scenes = []
    for row, places in enumerate(present):
        objects = []
        for place in (place for place, is_present in enumerate(places) if is_present):
            appearance = {name: ATTRIBUTES[name][values[name][row][place]] for name in ATTRIBUTES}
            x, y = (
                min(max(round(middle + offset * THIRD / 2), first), last)
                for middle, offset, (first, last) in zip(
                    _place_center(place),
                    centers[row][place],
                    (_RANGES[place % 3], _RANGES[place // 3]),
                    strict=True,
                )
            )
            objects.append(SceneObject(**appearance, x=x, y=y))
        scenes.append(Scene(tuple(objects), 0))
    return scenes
