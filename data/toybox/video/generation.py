"""Random clips from a seed, built outward from the middle frame.

The scene in the middle of a clip is drawn first, exactly as the scenes of images are. Then the events of the second
half are drawn forward in time, and those of the first half by the same function backward in time. Nothing happens in
the middle itself. It follows that:

* a clip and the same clip played backward are equally likely, so the middle frame does not reveal any direction;
* the number and the times of the events do not depend on the middle frame (apart from blocked paths).

Clip number `number` of a split and seed is a pure function of the three and of the settings. It uses purposes 184–191
of `stream`; questions about clips use 192–199.
"""

from collections.abc import Collection, Sequence
from random import Random
from typing import NamedTuple

from data.toybox.heldout import HELD_OUT, SPLITS, check_split
from data.toybox.scene import (
    COLORS,
    GAP,
    SHAPES,
    SIZES,
    TEXTURES,
    WIDTH,
    WORLD,
    Pair,
    SceneObject,
    make_scene,
    pick,
)
from data.toybox.scene import stream as random_stream
from data.toybox.video.clip import (
    CHANGES,
    DIRECTIONS,
    KINDS,
    Box,
    Clip,
    Event,
    event_order,
    is_outside,
    outside,
    reverse_event,
    swept_box,
)

SCENE_PURPOSE, EVENT_PURPOSE, QUESTION_PURPOSE = 184, 188, 192
STEP = 250
"""Milliseconds: every start and end is a multiple, and at least this long passes between two events of one object."""
SHORTEST, LONGEST = 2, 16
"""Least and greatest length of a clip in seconds."""
_LENGTHS = (500, 1000, 2000, 3000, 4000)
_EVENTS_PER_HALF = (0, 1, 2, 2, 3, 3, 4)
_BURST = 1500
_SHORTEST_PATH = 24  # world units: 6 pixels of a 32 × 32 image
_NEWCOMERS_PER_HALF = 2
_VALUES: dict[str, tuple[str, ...]] = {"color": COLORS, "size": SIZES, "texture": TEXTURES}


class ClipSettings(NamedTuple):
    """What a clip may contain.

    objects  least and greatest number of objects in the middle of the clip
    seconds  least and greatest length; lengths are multiples of half a second
    kinds    kinds of events, equally likely; one that stands twice is twice as likely
    """

    objects: tuple[int, int] = (1, 4)
    seconds: tuple[float, float] = (SHORTEST, LONGEST)
    kinds: tuple[str, ...] = KINDS


DEFAULT = ClipSettings()


def clip_at(split: str, seed: int, number: int, settings: ClipSettings = DEFAULT) -> Clip:
    """Return clip `number` of a split.

    No clip of "train" or "validation" holds a held-out combination at any time, also not after a change of color.
    A clip of "test" holds one in its middle frame.

    Raises ValueError for an unknown split or settings that are out of range.
    """
    check_split(split)
    _check_settings(settings)
    forbidden: Collection[Pair] = () if split == "test" else HELD_OUT
    required = tuple(sorted(HELD_OUT)) if split == "test" else ()
    index = SPLITS.index(split)
    middle = make_scene(
        seed,
        number,
        objects=settings.objects,
        forbidden=forbidden,
        required=required,
        purpose=SCENE_PURPOSE + index,
    )
    rng = random_stream(seed, number, EVENT_PURPOSE + index)
    least, most = (int(2 * limit) for limit in settings.seconds)
    half = 250 * (least + int(rng.random() * (most - least + 1)))
    favorite = int(rng.random() * len(middle.objects))
    later = _Half(rng, middle.objects, favorite, forbidden).draw(half, settings.kinds)
    earlier = _Half(rng, middle.objects, favorite, forbidden).draw(half, settings.kinds)
    return _join_halves(middle.objects, middle.background, half, earlier, later)


def _check_settings(settings: ClipSettings) -> None:
    least, most = settings.seconds
    if not SHORTEST <= least <= most <= LONGEST or (2 * least) % 1 or (2 * most) % 1:
        raise ValueError(
            f"seconds={settings.seconds}: expected (least, most) from {SHORTEST} to {LONGEST} in steps of 0.5"
        )
    if not settings.kinds or not set(settings.kinds) <= set(KINDS):
        raise ValueError(f"kinds={settings.kinds}: expected at least one of {', '.join(KINDS)}")


def _join_halves(
    middle: Sequence[SceneObject], background: int, half: int, earlier: list[Event], later: list[Event]
) -> Clip:
    """Return the clip whose halves are `earlier`, in milliseconds before the middle, and `later`, after it."""
    # The objects that are new in the second half come first, then those that are only in the first half.
    added = max([len(middle), *(event.target + 1 for event in later)]) - len(middle)
    events = [event._replace(start=event.start + half, end=event.end + half) for event in later]
    for event in earlier:
        target = event.target + added if event.target >= len(middle) else event.target
        events.append(reverse_event(event._replace(target=target), half))
    events.sort(key=event_order)
    first: dict[int, SceneObject] = dict(enumerate(middle))
    for event in reversed(events):
        first[event.target] = event.before
    return Clip(2 * half, tuple(first[target] for target in sorted(first)), tuple(events), background)


class _Half:
    """Draws the events of half a clip, in milliseconds from the middle outward."""

    def __init__(self, rng: Random, objects: Sequence[SceneObject], favorite: int, forbidden: Collection[Pair]):
        self.rng = rng
        self.states = list(objects)
        self.favorite = favorite
        self.forbidden = forbidden
        self.last: list[Event | None] = [None] * len(objects)
        self.newcomers = 0

    def draw(self, length: int, kinds: Sequence[str]) -> list[Event]:
        events = []
        for start, end, kind in self._draw_slots(length, kinds):
            for _ in range(6):
                event = self._draw_event(kind, start, end)
                if event is not None and self._is_path_free(event):
                    events.append(event)
                    self._apply(event)
                    break
        return events

    def _draw_slots(self, length: int, kinds: Sequence[str]) -> list[tuple[int, int, str]]:
        """Draw (start, end, kind) of each event: anywhere in the half, or together in a short burst."""
        rng, first, last = self.rng, STEP, length - STEP
        count = pick(rng, _EVENTS_PER_HALF)
        if rng.random() < 0.3:
            burst = min(_BURST, last - first)
            first += STEP * int(rng.random() * ((last - first - burst) // STEP + 1))
            last = first + burst
        slots = []
        for _ in range(count):
            kind = pick(rng, kinds)
            extent = 0 if kind in CHANGES else pick(rng, [extent for extent in _LENGTHS if extent <= last - first])
            start = first + STEP * int(rng.random() * ((last - first - extent) // STEP + 1))
            slots.append((start, start + extent, kind))
        return sorted(slots)

    def _draw_event(self, kind: str, start: int, end: int) -> Event | None:
        """Draw an object and what happens to it, or None when that is not possible."""
        if kind == "enter":
            return self._draw_entrance(start, end)
        # Every object is equally likely at every time, also one that has left: then the event is drawn again.
        use_favorite = self.rng.random() < 0.4
        target = self.favorite if use_favorite else int(self.rng.random() * len(self.states))
        before, last = self.states[target], self.last[target]
        if is_outside(before) or (last is not None and last.end + STEP > start):
            return None
        after = self._draw_state_after(kind, before)
        return None if after is None else Event(target, kind, start, end, before, after)

    def _draw_state_after(self, kind: str, before: SceneObject) -> SceneObject | None:
        if kind in CHANGES:
            value = pick(self.rng, [value for value in _VALUES[kind] if value != getattr(before, kind)])
            after = before._replace(**{kind: value})
            return after if (after.color, after.shape) not in self.forbidden and _is_well_placed(after) else None
        direction = pick(self.rng, DIRECTIONS)
        if kind == "leave":
            return outside(before, direction)
        axis, sign = ("x" if direction in ("left", "right") else "y"), (-1 if direction in ("left", "up") else 1)
        center = getattr(before, axis)
        third = 3 * center // WORLD + sign
        if not 0 <= third < 3:
            return None
        target = _draw_center(self.rng, before.size, third)
        if abs(target - center) < _SHORTEST_PATH:
            return None
        return before._replace(x=target) if axis == "x" else before._replace(y=target)

    def _draw_entrance(self, start: int, end: int) -> Event | None:
        if self.newcomers == _NEWCOMERS_PER_HALF:
            return None
        rng = self.rng
        color, shape = pick(rng, COLORS), pick(rng, SHAPES)
        size, texture = pick(rng, SIZES), pick(rng, TEXTURES)
        column, row = int(rng.random() * 3), int(rng.random() * 3)
        after = SceneObject(shape, color, size, texture, _draw_center(rng, size, column), _draw_center(rng, size, row))
        if (color, shape) in self.forbidden:
            return None
        return Event(len(self.states), "enter", start, end, outside(after, pick(rng, DIRECTIONS)), after)

    def _is_path_free(self, event: Event) -> bool:
        """Return whether the event's path stays clear of every other object, wherever that is during the event."""
        path = swept_box(event.before, event.after)
        for target, state in enumerate(self.states):
            last = self.last[target]
            under_way = last is not None and last.end > event.start
            if target == event.target or (is_outside(state) and not under_way):
                continue
            if not _are_apart(path, swept_box(last.before, last.after) if last and under_way else state.box):
                return False
        return True

    def _apply(self, event: Event) -> None:
        if event.target == len(self.states):
            self.states.append(event.after)
            self.last.append(event)
            self.newcomers += 1
        else:
            self.states[event.target], self.last[event.target] = event.after, event


def _are_apart(a: Box, b: Box) -> bool:
    """Return whether at least `GAP` units lie between two boxes."""
    return a[2] + GAP <= b[0] or b[2] + GAP <= a[0] or a[3] + GAP <= b[1] or b[3] + GAP <= a[1]


def _center_range(size: str, third: int) -> tuple[int, int]:
    """Return the least and greatest center of an object in a third of an axis, as `scene` draws them."""
    half = WIDTH[size] // 2
    return ((half + 1, 40), (46, 82), (88, WORLD - 1 - half))[third]


def _draw_center(rng: Random, size: str, third: int) -> int:
    least, most = _center_range(size, third)
    return least + int(rng.random() * (most - least + 1))


def _is_well_placed(scene_object: SceneObject) -> bool:
    """Return whether an object lies well inside its ninth of the world; a small one may be too near the border."""
    for center in (scene_object.x, scene_object.y):
        least, most = _center_range(scene_object.size, 3 * center // WORLD)
        if not least <= center <= most:
            return False
    return True
