"""What the decoder reads: the toy world in words, and episodes that teach it to learn from examples.

Every document is a pure function of (split, seed, number), so a corpus needs no file. Six kinds:

    caption      a small striped red circle and two blue stars
    question     two blue stars and a red moon. what colour is the moon? red
    instruction  a red moon and a blue star. point to the star
    naming       small striped red circle: circle red.⏎ large plain blue star: star blue.⏎ …
    choosing     red circle? circle.⏎ small plain star? star.⏎ large blue? blue.⏎ …
    interview    a small plain red moon at the top.⏎ what is there? a red moon⏎ where is the moon? top⏎ …

Interviews are only for the model that later lessons ask about pictures (`SHARES_TO_BE_ASKED`). Naming and choosing are *episodes by example*: a rule that nobody states holds for every line. In naming it says which attributes of
a thing are named, in which order: one example tells. In choosing it is an order of the four kinds of attribute, and of those
shown the one that comes first is said: each example tells a part of the order. Who predicts the end of a later line well has
learned the rule from the earlier ones, in context. Some rules are held out, as some combinations of colour and shape are
(`data.toybox.heldout`): those cannot have been remembered.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from random import Random
from typing import NamedTuple

from data.datasets.download import data_folder
from data.toybox.heldout import SEEN_PAIRS, SPLITS, check_split, scene_at
from data.toybox.language import ATTRIBUTES, LEVELS, caption, instruction
from data.toybox.questions import ANSWERS, Question, ask, question_at
from data.toybox.questions import KINDS as QUESTION_KINDS
from data.toybox.scene import COLOURS, SHAPES, SIZES, TEXTURES, Scene, SceneObject, pick, stream
from shared.errors import CourseError

KINDS = ("caption", "question", "instruction", "naming", "choosing", "interview")
SHARES = (2, 2, 1, 3, 4, 0)
"""How many documents of each kind stand in a dozen."""
SHARES_TO_BE_ASKED = (1, 1, 1, 2, 3, 7)
"""The same, in fifteen, for a model that is to answer questions: several about each scene, and scenes of one thing as well."""
LINES = {"naming": 8, "choosing": 12}
INTERVIEWED, QUESTIONS = (1, 3), 4
"""How many things there are in an interview's scene, and questions about it beside the first."""
WHAT_IS_THERE = "what is there?"
"""Examples in an episode."""
FIRST_PURPOSE = 100
"""Our own random numbers among those of `stream`: the toy world uses purposes below 64."""

# ── Rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMING_RULES: tuple[tuple[str, ...], ...] = tuple(
    rule for length in (1, 2, 3) for rule in permutations(ATTRIBUTES, length)
)
_CYCLE = ("size", "texture", "colour", "shape")
"""The kinds of attribute, in the order in which a thing is described."""
# Each attribute stands in each place of a held-out pair once, and in each place of a held-out triple twice.
HELD_OUT_NAMING = frozenset(
    rule
    for place in range(4)
    for rule in (
        (_CYCLE[place], _CYCLE[place - 3]),
        (_CYCLE[place], _CYCLE[place - 2], _CYCLE[place - 1]),
        (_CYCLE[place], _CYCLE[place - 1], _CYCLE[place - 3]),
    )
)
SEEN_NAMING = tuple(rule for rule in NAMING_RULES if rule not in HELD_OUT_NAMING)


CHOOSING_RULES: tuple[tuple[str, ...], ...] = tuple(permutations(ATTRIBUTES))
# The cycle begun at each place, forwards and backwards: each attribute stands in each place twice.
HELD_OUT_CHOOSING = frozenset(
    tuple(_CYCLE[(place + way * step) % 4] for step in range(4)) for place in range(4) for way in (1, -1)
)
SEEN_CHOOSING = tuple(rule for rule in CHOOSING_RULES if rule not in HELD_OUT_CHOOSING)


class Line(NamedTuple):
    """One line of an episode: what is shown, and what the rule says to it."""

    shown: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.shown} {self.answer}.\n"


def naming_episode(rng: Random, *, held_out: bool = False) -> list[Line]:
    """Lines that name one to three attributes of a thing, always the same in the same order; with `held_out` in an unseen one."""
    rule = pick(rng, sorted(HELD_OUT_NAMING)) if held_out else pick(rng, SEEN_NAMING)
    objects = [_object(rng) for _ in range(LINES["naming"])]
    return [
        Line(" ".join(scene_object.values()) + ":", " ".join(scene_object[part] for part in rule))
        for scene_object in objects
    ]


def choosing_episode(rng: Random, *, held_out: bool = False) -> list[Line]:
    """Lines that show two or three attributes of a thing and say the one that comes first in the episode's order."""
    rule = pick(rng, sorted(HELD_OUT_CHOOSING)) if held_out else pick(rng, SEEN_CHOOSING)
    episode = []
    for _ in range(LINES["choosing"]):
        scene_object, shown = _object(rng), pick(rng, _SHOWN)
        episode.append(
            Line(" ".join(scene_object[part] for part in shown) + "?", scene_object[min(shown, key=rule.index)])
        )
    return episode


# As many pairs as triples.
_SHOWN = [*combinations(_CYCLE, 2)] * 2 + [*combinations(_CYCLE, 3)] * 3


def _object(rng: Random) -> dict[str, str]:
    """A thing of a seen combination, its attributes by their kinds."""
    colour, shape = pick(rng, SEEN_PAIRS)
    return {"size": pick(rng, SIZES), "texture": pick(rng, TEXTURES), "colour": colour, "shape": shape}


def best_guess(before: Sequence[Line], line: Line) -> float:
    """How often the best possible guess at the end of a line of choosing is right, if all 24 orders are equally likely at first.

    Counted over the orders that agree with the lines before: a bound on any learner that knows no more than the rules of the game.
    """
    left = [rule for rule in CHOOSING_RULES if all(chosen(rule, shown) == answer for shown, answer in before)]
    return max(Counter(chosen(rule, line.shown) for rule in left).values()) / len(left)


def chosen(rule: Sequence[str], shown: str) -> str:
    """Which of the words shown comes first in an order of the kinds of attribute."""
    values = {"size": SIZES, "texture": TEXTURES, "colour": COLOURS, "shape": SHAPES}
    words = shown.rstrip("?").split()
    return next(word for kind in rule for word in words if word in values[kind])


EPISODES = {"naming": naming_episode, "choosing": choosing_episode}

# ── Documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def episode_at(kind: str, split: str, seed: int, number: int, *, held_out: bool = False) -> list[Line]:
    """Episode `number` of a kind, "naming" or "choosing". Raises ValueError for another kind or split."""
    check_split(split)
    if kind not in EPISODES:
        raise ValueError(f"no episodes of kind {kind!r}: choose one of {', '.join(EPISODES)}")
    purpose = FIRST_PURPOSE + 8 * SPLITS.index(split) + 2 * KINDS.index(kind) % 8 + held_out
    return EPISODES[kind](stream(seed, number, purpose), held_out=held_out)


def document_at(split: str, seed: int, number: int, *, mixed: bool = False, shares: Sequence[int] = SHARES) -> str:
    """Document `number` of a split; the kinds stand in the proportions of `shares`.

    In "train" and "validation" all rules and combinations are seen ones; in "test" every scene has a held-out
    combination and every episode a held-out rule. With `mixed` each line of an episode follows a rule of its own: the same
    sentences, and nothing to learn from the lines before. Raises ValueError for another split.
    """
    check_split(split)
    rng = stream(seed, number, FIRST_PURPOSE + 64 + SPLITS.index(split))
    kind = pick(rng, [kind for kind, share in zip(KINDS, shares, strict=True) for _ in range(share)])
    if kind in EPISODES:
        held_out = split == "test"
        lines = episode_at(kind, split, seed, number, held_out=held_out)
        if mixed:
            others = (MIXED * (number + 1) + place for place in range(len(lines)))
            lines = [episode_at(kind, split, seed, other, held_out=held_out)[0] for other in others]
        return "".join(line.text for line in lines)
    if kind == "question":
        scene, question = question_at(split, seed, number, objects=(2, 4))
        return f"{caption(scene, 'places')}. {question.text} {question.answer}\n"
    if kind == "interview":
        return interview(split, seed, number, rng)
    if kind == "instruction":
        scene = scene_at(split, seed, number, (2, 4))
        return f"{caption(scene, 'attributes')}. {instruction(scene, rng).text}\n"
    return f"{caption(scene_at(split, seed, number), pick(rng, LEVELS), rng)}\n"


def interview(split: str, seed: int, number: int, rng: Random) -> str:
    """A scene told in full, then what there is in short, then questions about it, a line each."""
    scene, other = (scene_at(split, seed, at, INTERVIEWED) for at in (number, number + 2**39))
    lines = [f"{caption(scene, 'places')}.", f"{WHAT_IS_THERE} {caption(scene, 'colours')}"]
    for _ in range(QUESTIONS):
        question = _any_question(scene, other.objects, rng)
        lines.append(f"{question.text} {question.answer}")
    return "\n".join(lines) + "\n"


def _any_question(scene: Scene, elsewhere: Sequence[SceneObject], rng: Random) -> Question:
    """A question of a kind and with an answer drawn at random, among those that the scene has."""
    first = int(rng.random() * len(QUESTION_KINDS))
    for kind in (*QUESTION_KINDS[first:], *QUESTION_KINDS[:first]):
        for answer in sorted(ANSWERS[kind], key=lambda _: rng.random()):
            if question := ask(scene, kind, answer, rng, elsewhere):
                return question
    raise AssertionError("every scene has a thing whose colour can be asked")


MIXED = 1_000_000
"""From so many numbers on, episodes lend their first lines to mixed ones, a block of numbers to each."""


def documents(split: str, seed: int, count: int, *, mixed: bool = False, shares: Sequence[int] = SHARES) -> list[str]:
    """The first `count` documents of a split."""
    return [document_at(split, seed, number, mixed=mixed, shares=shares) for number in range(count)]


# ── Real text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def real_documents(data: str, *, characters: int = 300) -> list[str]:
    """The text files of “folder:PATH”, or of `text_small` in the data folder, in pieces of about so many characters.

    Pieces end at the end of a line. Raises CourseError when there is no such folder or no text in it.
    """
    folder = Path(data.removeprefix("folder:")) if data.startswith("folder:") else data_folder() / data
    files = sorted(folder.glob("**/*.txt")) if folder.is_dir() else []
    pieces, piece = [], ""
    for file in files:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            piece += line
            if len(piece) >= characters:
                pieces.append(piece)
                piece = ""
    pieces += [piece] if piece.strip() else []
    if not pieces:
        raise CourseError(f"{folder} holds no .txt file with text; name a folder that does: DATA=folder:PATH")
    return pieces
