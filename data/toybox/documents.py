"""The toy world as text: the documents that lesson 0's decoder is pretrained on.

Every document is a pure function of (split, seed, number), so a corpus needs no file. There are six types:

    caption      a small striped red circle and two blue stars
    question     two blue stars and a red moon. what color is the moon? red
    instruction  a red moon and a blue star. point to the star
    naming       an episode of `data.toybox.episodes`
    choosing     an episode of `data.toybox.episodes`
    interview    a small plain red moon at the top.⏎ what is there? a red moon⏎ … (`data.toybox.interviews`)

Interviews are only in the mixture for the language model that later lessons connect to images (`INTERVIEW_MIXTURE`).
"""

from collections.abc import Sequence

from data.toybox.episodes import EPISODES, FIRST_PURPOSE, episode_at
from data.toybox.heldout import SPLITS, check_split, scene_at
from data.toybox.interviews import interview
from data.toybox.language import LEVELS, caption, instruction
from data.toybox.questions import question_at
from data.toybox.scene import pick, stream

DOCUMENT_TYPES = ("caption", "question", "instruction", "naming", "choosing", "interview")
MIXTURE = (2, 2, 1, 3, 4, 0)
"""Documents of each type per twelve."""
INTERVIEW_MIXTURE = (1, 1, 1, 3, 3, 18)
"""Documents of each type per 27, for a model that answers questions: many per scene, also on single objects."""
_MIXED_OFFSET = 1_000_000
"""From this number on, each block of numbers supplies the lines of one episode of mixed rules."""


def document_at(split: str, seed: int, number: int, *, mixed: bool = False, mixture: Sequence[int] = MIXTURE) -> str:
    """Return document `number` of a split; types occur in the proportions of `mixture`.

    In "train" and "validation" all rules and combinations are seen ones. In "test" every scene has a held-out
    combination and every episode a held-out rule. With `mixed`, each line of an episode follows its own rule: a control
    with the same sentences, in which earlier lines do not determine later ones. Raises ValueError for another split.
    """
    check_split(split)
    rng = stream(seed, number, FIRST_PURPOSE + 64 + SPLITS.index(split))
    document_type = pick(
        rng, [name for name, weight in zip(DOCUMENT_TYPES, mixture, strict=True) for _ in range(weight)]
    )
    if document_type in EPISODES:
        held_out = split == "test"
        lines = episode_at(document_type, split, seed, number, held_out=held_out)
        if mixed:
            others = (_MIXED_OFFSET * (number + 1) + index for index in range(len(lines)))
            lines = [episode_at(document_type, split, seed, other, held_out=held_out)[0] for other in others]
        return "".join(line.text for line in lines)
    if document_type == "question":
        scene, question = question_at(split, seed, number, objects=(2, 4))
        return f"{caption(scene, 'places')}. {question.text} {question.answer}\n"
    if document_type == "interview":
        return interview(split, seed, number, rng)
    if document_type == "instruction":
        scene = scene_at(split, seed, number, (2, 4))
        return f"{caption(scene, 'attributes')}. {instruction(scene, rng).text}\n"
    return f"{caption(scene_at(split, seed, number), pick(rng, LEVELS), rng)}\n"


def documents(split: str, seed: int, count: int, *, mixed: bool = False, mixture: Sequence[int] = MIXTURE) -> list[str]:
    """Return the first `count` documents of a split."""
    return [document_at(split, seed, number, mixed=mixed, mixture=mixture) for number in range(count)]
