"""What the decoder reads: the toy world in words, and episodes that teach it to learn from examples.

Every document is a pure function of (split, seed, number), so a corpus needs no file. Five kinds:

    caption      a small striped red circle and two blue stars
    question     two blue stars and a red moon. what colour is the moon? red
    instruction  a red moon and a blue star. point to the star
    naming       small striped red circle: circle red.⏎ large plain blue star: star blue.⏎ …
    words        red dax.⏎ blue fep.⏎ red dax.⏎ blue fep.⏎ …

The last two are *episodes by example*: a rule that nobody states (which attributes to name, in which order; which
made-up word stands for what) holds for every line. Who predicts the end of a later line well has learned the rule from the
earlier ones, in context. Some rules and some pairs of word and meaning are held out, as some combinations of colour and
shape are (`data.toybox.heldout`): on those no rule can have been remembered.
"""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from random import Random
from typing import NamedTuple

from data.datasets.download import data_folder
from data.toybox.heldout import SEEN_PAIRS, SPLITS, check_split, scene_at
from data.toybox.language import ATTRIBUTES, LEVELS, caption, instruction
from data.toybox.questions import question_at
from data.toybox.scene import COLOURS, SHAPES, SIZES, TEXTURES, pick, stream
from shared.errors import CourseError

KINDS = ("caption", "question", "instruction", "naming", "words")
SHARES = (1, 2, 1, 4, 4)
"""How many documents of each kind stand in a dozen."""
LINES = 8
"""Examples in an episode; before the last there are five to learn from."""
MADE_UP = ("dax", "wug", "fep", "zib", "toma", "blick", "lorp", "mip")
FIRST_PURPOSE = 100
"""Our own random numbers among those of `stream`: the toy world uses purposes below 64."""

# ── Rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMING_RULES: tuple[tuple[str, ...], ...] = tuple(
    rule for length in (1, 2, 3) for rule in permutations(ATTRIBUTES, length)
)
# Each attribute stands in each place of a held-out pair once, and in each place of a held-out triple twice.
_CYCLE = ("size", "texture", "colour", "shape")
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


def are_held_out_meanings(first: str, second: str) -> bool:
    """Whether made-up words never stand for these two colours, or shapes, side by side in training: a quarter of the pairs.

    Each colour and each shape has partners of both kinds, so nothing about one of them tells which pairs are held out.
    """
    values = COLOURS if first in COLOURS else SHAPES
    return (values.index(first) + values.index(second)) % 4 == 3


class Line(NamedTuple):
    """One line of an episode: what is shown, and what the rule says to it."""

    shown: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.shown} {self.answer}.\n"


def naming_episode(rng: Random, *, held_out: bool = False, lines: int = LINES) -> list[Line]:
    """Lines that name one to three attributes of a thing, always the same in the same order; with `held_out` in an unseen one."""
    rule = pick(rng, sorted(HELD_OUT_NAMING)) if held_out else pick(rng, SEEN_NAMING)
    episode = []
    for _ in range(lines):
        colour, shape = pick(rng, SEEN_PAIRS)
        thing = {"size": pick(rng, SIZES), "texture": pick(rng, TEXTURES), "colour": colour, "shape": shape}
        episode.append(Line(" ".join(thing.values()) + ":", " ".join(thing[attribute] for attribute in rule)))
    return episode


def words_episode(rng: Random, *, held_out: bool = False, lines: int = LINES) -> list[Line]:
    """Lines that say one of two made-up words, which stand for two colours, or for two shapes, in this episode only.

    With `held_out` it is two that never stand side by side in training. What has not been shown yet cannot be known: after k
    lines the other meaning is still unseen with a chance of 2⁻ᵏ.
    """
    values = COLOURS if rng.random() < 0.5 else SHAPES
    words, meanings = _two(rng, MADE_UP), _two(rng, values)
    while are_held_out_meanings(*meanings) != held_out:
        meanings = _two(rng, values)
    shown = [int(rng.random() * 2) for _ in range(lines)]
    return [Line(meanings[which], words[which]) for which in shown]


def _two(rng: Random, options: Sequence[str]) -> tuple[str, str]:
    """Two different ones."""
    first = pick(rng, options)
    return first, pick(rng, [option for option in options if option != first])


EPISODES = {"naming": naming_episode, "words": words_episode}

# ── Documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def episode_at(kind: str, split: str, seed: int, number: int, *, held_out: bool = False) -> list[Line]:
    """Episode `number` of a kind, "naming" or "words". Raises ValueError for another kind or split."""
    check_split(split)
    if kind not in EPISODES:
        raise ValueError(f"no episodes of kind {kind!r}: choose one of {', '.join(EPISODES)}")
    purpose = FIRST_PURPOSE + 8 * SPLITS.index(split) + 2 * KINDS.index(kind) % 8 + held_out
    return EPISODES[kind](stream(seed, number, purpose), held_out=held_out)


def document_at(split: str, seed: int, number: int, kinds: Sequence[str] = KINDS) -> str:
    """Document `number` of a split, of one of `kinds` in the proportions of `SHARES`.

    In "train" and "validation" all rules and combinations are seen ones; in "test" every scene has a held-out
    combination and every episode a held-out rule. Raises ValueError for another split.
    """
    check_split(split)
    rng = stream(seed, number, FIRST_PURPOSE + 64 + SPLITS.index(split))
    kind = pick(rng, [kind for kind, share in zip(KINDS, SHARES, strict=True) if kind in kinds for _ in range(share)])
    if kind in EPISODES:
        return "".join(line.text for line in episode_at(kind, split, seed, number, held_out=split == "test"))
    if kind == "question":
        scene, question = question_at(split, seed, number, things=(2, 4))
        return f"{caption(scene, 'places')}. {question.text} {question.answer}\n"
    scene = scene_at(split, seed, number, (2, 4))
    if kind == "instruction":
        return f"{caption(scene, 'attributes')}. {instruction(scene, rng).text}\n"
    return f"{caption(scene, pick(rng, LEVELS), rng)}\n"


def documents(split: str, seed: int, count: int, kinds: Sequence[str] = KINDS) -> list[str]:
    """The first `count` documents of a split."""
    return [document_at(split, seed, number, kinds) for number in range(count)]


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
