"""Clips: objects and events with start and end times, and the scene at any time.

A `Clip` is defined in continuous time, so it has no frame rate: `scene_at_time` returns the `Scene` at any number of
seconds, and a renderer chooses the times. The positions of moving objects are computed in whole numbers and are
therefore equal on every machine. Stored times are whole milliseconds.
"""

from fractions import Fraction
from typing import NamedTuple

from data.toybox.heldout import HELD_OUT
from data.toybox.scene import WIDTH, WORLD, Scene, SceneObject

MOTIONS = ("move", "enter", "leave")
CHANGES = ("color", "size", "texture")
KINDS = MOTIONS + CHANGES
"""Kinds of events. An object enters and leaves across the border of the world; a change takes no time."""
DIRECTIONS = ("left", "right", "up", "down")
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_REVERSED_KIND = {"enter": "leave", "leave": "enter"}

Box = tuple[int, int, int, int]
Seconds = int | float | Fraction


class Event(NamedTuple):
    """One event of one object.

    target         index of the object in the clip
    kind           one of `KINDS`
    start, end     milliseconds from the start of the clip; equal for a change
    before, after  the object when the event starts and when it ends; outside the world before it enters
    """

    target: int
    kind: str
    start: int
    end: int
    before: SceneObject
    after: SceneObject

    @property
    def direction(self) -> str | None:
        """Return the direction of a motion, one of `DIRECTIONS`, or None for a change."""
        dx, dy = self.after.x - self.before.x, self.after.y - self.before.y
        if dx == dy == 0:
            return None
        return ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")

    @property
    def speed(self) -> Fraction:
        """Return the speed of a motion in world units per second; 0 for a change."""
        distance = abs(self.after.x - self.before.x) + abs(self.after.y - self.before.y)
        return Fraction(1000 * distance, self.end - self.start) if self.end > self.start else Fraction(0)

    def object_at(self, milliseconds: Fraction) -> SceneObject:
        """Return the object at a time; from `end` on it is `after`."""
        if milliseconds >= self.end:
            return self.after
        if milliseconds <= self.start:
            return self.before
        part = (milliseconds - self.start) / (self.end - self.start)
        return self.before._replace(
            x=_round(self.before.x + part * (self.after.x - self.before.x)),
            y=_round(self.before.y + part * (self.after.y - self.before.y)),
        )


class Clip(NamedTuple):
    """A clip: its objects before their first event, its events in the order of their starts, and its length.

    duration  milliseconds
    """

    duration: int
    objects: tuple[SceneObject, ...]
    events: tuple[Event, ...]
    background: int

    @property
    def seconds(self) -> Fraction:
        """Return the clip's length in seconds."""
        return Fraction(self.duration, 1000)


def _round(value: Fraction) -> int:
    """Return the nearest whole number; a half is rounded up, not to an even number as by `round`."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def events_of(clip: Clip, target: int, *kinds: str) -> list[Event]:
    """Return the events of an object, in order; only of these kinds when any are passed."""
    return [event for event in clip.events if event.target == target and (not kinds or event.kind in kinds)]


def history(clip: Clip, target: int) -> list[SceneObject]:
    """Return an object at the start of the clip and after each of its events."""
    return [clip.objects[target], *(event.after for event in events_of(clip, target))]


def objects_at_time(clip: Clip, seconds: Seconds) -> tuple[SceneObject | None, ...]:
    """Return each object of the clip at a time, in seconds; None for an object that is outside the world.

    Raises ValueError for a time outside 0 … the clip's length.
    """
    milliseconds = 1000 * Fraction(seconds)
    if not 0 <= milliseconds <= clip.duration:
        raise ValueError(f"time {float(seconds):g} s: expected 0 to {float(clip.seconds):g} s, the clip's length")
    states: list[SceneObject | None] = []
    for target, first in enumerate(clip.objects):
        state: SceneObject | None = None if is_outside(first) else first
        for event in events_of(clip, target):
            if event.start <= milliseconds:
                state = event.object_at(milliseconds)
        states.append(None if state is None or is_outside(state) else state)
    return tuple(states)


def scene_at_time(clip: Clip, seconds: Seconds) -> Scene:
    """Return the scene at a time, in seconds: the objects inside the world, from top to bottom and left to right.

    An object that is entering or leaving may lie partly outside the world. Raises ValueError as `objects_at_time` does.
    """
    present = [state for state in objects_at_time(clip, seconds) if state is not None]
    return Scene(
        tuple(sorted(present, key=lambda state: (3 * state.y // WORLD, 3 * state.x // WORLD))), clip.background
    )


def is_outside(scene_object: SceneObject) -> bool:
    """Return whether no part of an object is inside the world."""
    left, top, right, bottom = scene_object.box
    return right <= 0 or bottom <= 0 or left >= WORLD or top >= WORLD


def is_always_present(clip: Clip, target: int) -> bool:
    """Return whether an object is inside the world during the whole clip."""
    return not is_outside(clip.objects[target]) and not events_of(clip, target, "enter", "leave")


def outside(scene_object: SceneObject, side: str) -> SceneObject:
    """Return an object moved straight to a side of the world ("left", "right", "up", "down") until it is outside."""
    half = WIDTH[scene_object.size] // 2
    near, far = -half, WORLD + half
    if side in ("left", "right"):
        return scene_object._replace(x=near if side == "left" else far)
    return scene_object._replace(y=near if side == "up" else far)


def swept_box(before: SceneObject, after: SceneObject) -> Box:
    """Return the bounding box of an object's path from one state to another."""
    a, b = before.box, after.box
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def reverse_event(event: Event, duration: int) -> Event:
    """Return an event as it happens when a clip of `duration` milliseconds is played backward."""
    kind = _REVERSED_KIND.get(event.kind, event.kind)
    return Event(event.target, kind, duration - event.end, duration - event.start, event.after, event.before)


def reverse_clip(clip: Clip) -> Clip:
    """Return a clip played backward: its middle frame stays, and every motion changes its direction."""
    objects = tuple(history(clip, target)[-1] for target in range(len(clip.objects)))
    events = sorted((reverse_event(event, clip.duration) for event in clip.events), key=event_order)
    return Clip(clip.duration, objects, tuple(events), clip.background)


def event_order(event: Event) -> tuple[int, int, int]:
    """Return the sort key of events: start, end, object."""
    return event.start, event.end, event.target


def contains_held_out(clip: Clip) -> bool:
    """Return whether any object has a held-out combination of color and shape at any time of the clip."""
    return any(
        (state.color, state.shape) in HELD_OUT for target in range(len(clip.objects)) for state in history(clip, target)
    )
