"""Clips of one object that moves once and changes its color once, each between two frames.

Between two events nothing changes, so a clip of any number of frames has three different frames. A longer clip holds
the same two events with more time around them, so that only its length makes it harder.
"""

from dataclasses import dataclass
from fractions import Fraction
from random import Random

from data.toybox.heldout import HELD_OUT, SPLITS, scene_at
from data.toybox.scene import COLORS, SceneObject, pick, stream
from data.toybox.video.clip import DIRECTIONS, Clip, Event, event_order

PURPOSE = 200
"""The first purpose of `stream` for these clips; each split has its own."""
STEP = 40
"""World units that an object moves: 10 pixels of 32, less than a third of the world."""
NEAREST, FARTHEST = 24, 103
"""Least and greatest center of an object along an axis."""


@dataclass(frozen=True)
class Timing:
    """How a clip is filmed: `frames` frames, `gap` milliseconds apart."""

    frames: int
    gap: int = 1000

    @property
    def times(self) -> list[Fraction]:
        """The time of each frame in seconds."""
        return [Fraction(frame * self.gap, 1000) for frame in range(self.frames)]


def two_event_clip(split: str, seed: int, number: int, timing: Timing) -> Clip:
    """Return clip `number` of a split, with a motion and a change of color in two different gaps between frames.

    No clip of "train" or "validation" holds a held-out combination at any time; each clip of "test" starts or ends with
    one. All pairs of gaps are equally likely. Raises ValueError for fewer than three frames.
    """
    if timing.frames < 3:
        raise ValueError(f"{timing.frames} frames have {timing.frames - 1} gaps; two events need at least 3 frames")
    first = scene_at(split, seed, number, (1, 1))
    rng = stream(seed, number, PURPOSE + SPLITS.index(split))
    start = first.objects[0]._replace(x=_center(rng), y=_center(rng))
    other = start._replace(color=_other_color(rng, start, split))
    if rng.random() < 0.5:
        start, other = other, start
    direction = pick(rng, [each for each in DIRECTIONS if _is_possible(start, each)])
    gaps = list(range(timing.frames - 1))
    moves, changes = (gaps.pop(int(rng.random() * len(gaps))) * timing.gap for _ in range(2))
    before, end = start, moves + timing.gap
    if changes < moves:
        before = start._replace(color=other.color)
    motion = Event(0, "move", moves, end, before, _moved(before, direction))
    at_change = start if changes < moves else _moved(start, direction)
    moment = changes + timing.gap // 2
    change = Event(0, "color", moment, moment, at_change, at_change._replace(color=other.color))
    events = tuple(sorted((motion, change), key=event_order))
    return Clip(timing.frames * timing.gap, (start,), events, first.background)


def _center(rng: Random) -> int:
    return NEAREST + int(rng.random() * (FARTHEST - NEAREST + 1))


def _other_color(rng: Random, scene_object: SceneObject, split: str) -> str:
    colors = [
        color
        for color in COLORS
        if color != scene_object.color and (split == "test" or (color, scene_object.shape) not in HELD_OUT)
    ]
    return pick(rng, colors)


def _moved(scene_object: SceneObject, direction: str) -> SceneObject:
    """Return an object moved by `STEP` units."""
    sign = -STEP if direction in ("left", "up") else STEP
    if direction in ("left", "right"):
        return scene_object._replace(x=scene_object.x + sign)
    return scene_object._replace(y=scene_object.y + sign)


def _is_possible(scene_object: SceneObject, direction: str) -> bool:
    moved = _moved(scene_object, direction)
    return min(moved.x, moved.y) >= NEAREST and max(moved.x, moved.y) <= FARTHEST
