"""The language of clips: references to objects, sentences about events, captions, and timelines that can be read back.

    caption   = scene "." events ;  events = sentence {(", then " | " while ") sentence} | "nothing happens"
    timeline  = line {newline line} ;  line = seconds " s: " sentence | seconds " s to " seconds " s: " sentence
    sentence  = "the " description verb

The words of `data.toybox.language` describe the objects. A description uses only attributes that its object keeps for
the whole clip where those suffice, so that "the red circle" is one object at every time.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import combinations
from random import Random
from typing import NamedTuple

from data.toybox.language import ATTRIBUTES, Description, caption, describe, parse_phrase, words
from data.toybox.scene import COLORS, SIZES, TEXTURES, pick
from data.toybox.video.clip import OPPOSITE, Clip, Event, history, scene_at_time

LEVELS = ("events", "full")
# Speeds in world units per second; between the two no speed is mentioned.
SLOW, FAST = 22, 44
VERB = {
    "move": "move",
    "enter": "enter",
    "leave": "leave",
    "color": "change color",
    "size": "change size",
    "texture": "change texture",
}
THIRD_PERSON = {kind: verb.replace(" ", "s ", 1) if " " in verb else f"{verb}s" for kind, verb in VERB.items()}
_SIDE = {"left": "on the left", "right": "on the right", "up": "at the top", "down": "at the bottom"}
_BECOMES = {"color": "turns", "size": "becomes", "texture": "becomes"}
_VALUES = {"color": COLORS, "size": SIZES, "texture": TEXTURES}


class TimedSentence(NamedTuple):
    """One line of a timeline: the milliseconds at which the event starts and ends, its object, and what happens."""

    start: int
    end: int
    description: Description
    action: str


def constant_attributes(clip: Clip, target: int) -> tuple[str, ...]:
    """Return those of shape, color, size and texture that an object keeps for the whole clip."""
    states = history(clip, target)
    order = ("shape", "color", "size", "texture")
    return tuple(name for name in order if len({getattr(state, name) for state in states}) == 1)


def refer_in_clip(
    clip: Clip, target: int, rng: Random | None = None, excluded: Sequence[str] = ()
) -> Description | None:
    """Return a description that fits this object at all times and no other object at any time, or None.

    It is as short as possible, and with `rng` it mentions one attribute more with probability one half. Attributes in
    `excluded` are not mentioned.
    """
    allowed = [name for name in constant_attributes(clip, target) if name not in excluded]
    others = [state for other in range(len(clip.objects)) if other != target for state in history(clip, other)]
    generous = rng is not None and rng.random() < 0.5
    for length in range(1, len(allowed) + 1):
        descriptions = [describe(clip.objects[target], names) for names in combinations(allowed, length)]
        fitting = [description for description in descriptions if not any(map(description.fits, others))]
        if fitting and generous and length < len(allowed):
            generous = False  # a longer description fits too
        elif fitting:
            return pick(rng, fitting) if rng else fitting[0]
    return None


def name_object(clip: Clip, event: Event) -> Description:
    """Return a description of an event's object: a unique one, or all its attributes when the event starts."""
    return refer_in_clip(clip, event.target) or describe(event.before, ATTRIBUTES)


def action(event: Event) -> str:
    """Return what an event's object does: "moves right slowly", "enters on the left", "turns blue"."""
    direction = event.direction
    if direction is None:
        return f"{_BECOMES[event.kind]} {getattr(event.after, event.kind)}"
    if event.kind == "move":
        pace = " slowly" if event.speed <= SLOW else " quickly" if event.speed >= FAST else ""
        return f"moves {direction}{pace}"
    # An object that moves right enters on the left side and leaves on the right side.
    return f"enters {_SIDE[OPPOSITE[direction]]}" if event.kind == "enter" else f"leaves {_SIDE[direction]}"


ACTIONS = (
    *(f"moves {direction}{pace}" for direction in OPPOSITE for pace in ("", " slowly", " quickly")),
    *(f"{verb} {side}" for verb in ("enters", "leaves") for side in _SIDE.values()),
    *(f"{_BECOMES[kind]} {value}" for kind, values in _VALUES.items() for value in values),
)
"""Every text that `action` returns."""


def sentence(clip: Clip, event: Event) -> str:
    """Return a sentence about an event, such as "the red circle moves right"."""
    return f"the {words(name_object(clip, event))} {action(event)}"


def clip_caption(clip: Clip, level: str = "events") -> str:
    """Return a caption of a clip.

    "events": "the circle moves right while the star turns blue, then a …", in the order of the starts; "while" joins
    events that overlap in time. "full": the objects of the first frame before that.

    Raises ValueError for another level.
    """
    if level not in LEVELS:
        raise ValueError(f"no caption level {level!r}: choose one of {', '.join(LEVELS)}")
    text, last_start, last_end = "", -1, -1
    for event in clip.events:
        if text:
            together = event.start < last_end or event.start == last_start
            text += " while " if together else ", then "
        text += sentence(clip, event)
        last_start, last_end = event.start, max(last_end, event.end)
    text = text or "nothing happens"
    if level == "events":
        return text
    first = scene_at_time(clip, 0)
    return f"{caption(first, 'places') if first.objects else 'an empty scene'}. {text}"


def format_seconds(milliseconds: int) -> str:
    """Return a time in seconds without trailing zeros: "3", "0.25"."""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}".rstrip("0").rstrip(".")


def timeline(clip: Clip) -> str:
    """Return one line per event, such as "1.5 s to 3.5 s: the circle moves right" or "4 s: the star turns blue"."""
    lines = []
    for event in clip.events:
        time = f"{format_seconds(event.start)} s"
        time += f" to {format_seconds(event.end)} s" if event.end > event.start else ""
        lines.append(f"{time}: {sentence(clip, event)}")
    return "\n".join(lines)


_NUMBER = r"\d+(?:\.\d{1,3})?"
_LINE = re.compile(
    rf"(?P<start>{_NUMBER}) s(?: to (?P<end>{_NUMBER}) s)?: the (?P<noun>.+) (?P<action>{'|'.join(ACTIONS)})"
)


def parse_timeline(text: str) -> list[TimedSentence]:
    """Parse a timeline, for example a generated one. Raises ValueError that names the line outside the grammar."""
    parsed = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} is no line such as '1.5 s to 3 s: the red circle moves right'")
        start = int(1000 * Fraction(match["start"]))
        end = int(1000 * Fraction(match["end"])) if match["end"] else start
        article = "an" if match["noun"][0] in "aeiou" else "a"
        if end < start:
            raise ValueError(f"{line!r} ends before it starts")
        parsed.append(TimedSentence(start, end, parse_phrase(f"{article} {match['noun']}"), match["action"]))
    return parsed


def is_described(line: TimedSentence, clip: Clip, tolerance: int = 0) -> bool:
    """Return whether an event of the clip fits a line: its object and action, and its times within `tolerance` ms."""
    return any(
        line.action == action(event)
        and line.description.fits(event.before)
        and abs(line.start - event.start) <= tolerance
        and abs(line.end - event.end) <= tolerance
        for event in clip.events
    )


def vocabulary_texts() -> Iterable[str]:
    """Yield texts that contain every word of captions and timelines besides those of `data.toybox.language`."""
    yield from ACTIONS
    yield from (*VERB.values(), *THIRD_PERSON.values())
    yield "the then while nothing happens an empty scene s to"
