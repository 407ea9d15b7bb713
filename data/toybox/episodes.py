"""Episodes in text: a rule that no line states holds for every line, so it can only be learned in context.

    naming       small striped red circle: circle red.⏎ large plain blue star: star blue.⏎ …
    choosing     red circle? circle.⏎ small plain star? star.⏎ large blue? blue.⏎ …

A naming rule lists which attributes of an object are named, and in which order: one example determines it.
A choosing rule is an order of the four attribute types. Each line names the shown attribute that comes first in
that order, so each example reveals a part of it. A model that predicts the answers of later lines has inferred the rule
from the earlier lines. Some rules are held out from training, like some color–shape combinations
(`data.toybox.heldout`), so they cannot have been memorized.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from random import Random
from typing import NamedTuple

from data.toybox.heldout import SEEN_PAIRS, SPLITS, check_split
from data.toybox.language import ATTRIBUTES
from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES, pick, stream

LINES = {"naming": 8, "choosing": 12}
"""Number of lines in an episode of each type."""
FIRST_PURPOSE = 100
"""First purpose of `stream` that documents and episodes use; the other toy-world modules use purposes below 64."""
_PURPOSE_OF = {"naming": 6, "choosing": 0}

NAMING_RULES: tuple[tuple[str, ...], ...] = tuple(
    rule for length in (1, 2, 3) for rule in permutations(ATTRIBUTES, length)
)
_CYCLE = ("size", "texture", "color", "shape")
"""The attribute types, in the order in which a description lists them."""
# Each attribute stands once at each position of a held-out pair, and twice at each position of a held-out triple.
HELD_OUT_NAMING = frozenset(
    rule
    for first in range(4)
    for rule in (
        (_CYCLE[first], _CYCLE[first - 3]),
        (_CYCLE[first], _CYCLE[first - 2], _CYCLE[first - 1]),
        (_CYCLE[first], _CYCLE[first - 1], _CYCLE[first - 3]),
    )
)
SEEN_NAMING = tuple(rule for rule in NAMING_RULES if rule not in HELD_OUT_NAMING)

CHOOSING_RULES: tuple[tuple[str, ...], ...] = tuple(permutations(ATTRIBUTES))
# The cycle started at each attribute, forward and backward: each attribute stands twice at each position.
HELD_OUT_CHOOSING = frozenset(
    tuple(_CYCLE[(first + direction * step) % 4] for step in range(4)) for first in range(4) for direction in (1, -1)
)
SEEN_CHOOSING = tuple(rule for rule in CHOOSING_RULES if rule not in HELD_OUT_CHOOSING)


class Line(NamedTuple):
    """One line of an episode: the prompt, and the answer that the rule determines."""

    prompt: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.answer}.\n"


def naming_episode(rng: Random, *, held_out: bool = False) -> list[Line]:
    """Return lines that name one to three attributes of an object under one rule; with `held_out`, a held-out rule."""
    rule = pick(rng, sorted(HELD_OUT_NAMING)) if held_out else pick(rng, SEEN_NAMING)
    objects = [_object(rng) for _ in range(LINES["naming"])]
    return [Line(" ".join(item.values()) + ":", " ".join(item[attribute] for attribute in rule)) for item in objects]


def choosing_episode(rng: Random, *, held_out: bool = False) -> list[Line]:
    """Return lines that show two or three attributes and name the one that comes first in the rule's order."""
    rule = pick(rng, sorted(HELD_OUT_CHOOSING)) if held_out else pick(rng, SEEN_CHOOSING)
    episode = []
    for _ in range(LINES["choosing"]):
        item, attributes = _object(rng), pick(rng, _SHOWN_ATTRIBUTES)
        prompt = " ".join(item[attribute] for attribute in attributes) + "?"
        episode.append(Line(prompt, item[min(attributes, key=rule.index)]))
    return episode


# Pairs and triples of attribute types are equally frequent.
_SHOWN_ATTRIBUTES = [*combinations(_CYCLE, 2)] * 2 + [*combinations(_CYCLE, 3)] * 3


def _object(rng: Random) -> dict[str, str]:
    """Draw an object with a seen color–shape combination, as attribute type → value."""
    color, shape = pick(rng, SEEN_PAIRS)
    return {"size": pick(rng, SIZES), "texture": pick(rng, TEXTURES), "color": color, "shape": shape}


def best_guess(before: Sequence[Line], line: Line) -> float:
    """Return the accuracy of the optimal guess at a choosing line's answer, given the lines before it.

    All 24 orders are equally likely at first. The orders that agree with the earlier lines remain, and the
    optimal guess is their most frequent answer: an upper bound for any learner without further information.
    """
    remaining = [
        rule for rule in CHOOSING_RULES if all(first_in_order(rule, prompt) == answer for prompt, answer in before)
    ]
    return max(Counter(first_in_order(rule, line.prompt) for rule in remaining).values()) / len(remaining)


def first_in_order(rule: Sequence[str], prompt: str) -> str:
    """Return the word of a choosing prompt whose attribute type comes first in `rule`."""
    values = {"size": SIZES, "texture": TEXTURES, "color": COLORS, "shape": SHAPES}
    words = prompt.rstrip("?").split()
    return next(word for attribute in rule for word in words if word in values[attribute])


EPISODES = {"naming": naming_episode, "choosing": choosing_episode}


def episode_at(episode_type: str, split: str, seed: int, number: int, *, held_out: bool = False) -> list[Line]:
    """Return episode `number` of a type, "naming" or "choosing".

    Raises ValueError for another type or split.
    """
    check_split(split)
    if episode_type not in EPISODES:
        raise ValueError(f"no episodes of type {episode_type!r}: choose one of {', '.join(EPISODES)}")
    purpose = FIRST_PURPOSE + 8 * SPLITS.index(split) + _PURPOSE_OF[episode_type] + held_out
    return EPISODES[episode_type](stream(seed, number, purpose), held_out=held_out)
