"""People speaking well or ill of the toy world's things: "anna says that the small red circle is not very dull".

Half of the sentences turn their opinion round by a negation, and the pairs of negation and opinion are split: some are
only in the test. Who counts words knows that "not" was said and that "dull" was said; what it comes to must be read.
"""

from collections.abc import Collection
from itertools import pairwise
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.toybox.heldout import SEEN_PAIRS
from data.toybox.language import WHERE, Description, words
from data.toybox.scene import SIZES, TEXTURES

GOOD = ("good", "lovely", "charming", "splendid", "pleasant", "delightful", "beautiful", "wonderful")
BAD = ("bad", "dull", "ugly", "awful", "boring", "dreadful", "poor", "horrid")
NEGATIONS = ("not", "never", "hardly", "anything but", "far from", "by no means")
DEGREES = ("", "", "very", "really", "quite")
SPEAKERS = ("anna", "ben", "my sister", "the teacher", "our neighbor", "everyone")
FRAMES = (
    "the {scene_object} is {opinion}",
    "{speaker} says that the {scene_object} is {opinion}",
    "{speaker} finds the {scene_object} {opinion}",
    "{opinion} is what {speaker} calls the {scene_object}",
    "the {scene_object} {place} is {opinion} , says {speaker}",
)
# Each opinion word meets four negations in training and the other two only in the test.
UNSEEN = frozenset(
    (negation, opinion)
    for rank, opinion in enumerate(pair for both in zip(GOOD, BAD, strict=True) for pair in both)
    for negation in (NEGATIONS[rank // 2 % 6], NEGATIONS[(rank // 2 + 2 + rank % 2) % 6])
)
SEEN = tuple((n, o) for n in NEGATIONS for o in GOOD + BAD if (n, o) not in UNSEEN)


def sentence(rng: Random, *, unseen: bool) -> tuple[str, int]:
    """A sentence and whether it speaks well (1) or ill (0); a negation in it, every second time, is a seen or an unseen pair."""
    degree = rng.choice(DEGREES)
    good = rng.random() < 0.5
    if rng.random() < 0.5:
        pairs = [pair for pair in (sorted(UNSEEN) if unseen else SEEN) if (pair[1] in BAD) == good]
        negation, opinion = rng.choice(pairs)
        said = f"{negation} {degree} {opinion}"
    else:
        said = f"{degree} {rng.choice(GOOD if good else BAD)}"
    colour, shape = rng.choice(SEEN_PAIRS)
    scene_object = Description(rng.choice((None, *SIZES)), rng.choice((None, *TEXTURES)), colour, shape)
    text = rng.choice(FRAMES).format(
        scene_object=words(scene_object),
        place=rng.choice(list(WHERE.values())),
        speaker=rng.choice(SPEAKERS),
        opinion=said,
    )
    return " ".join(text.split()), int(good)


def sentences(count: int, seed: int, *, unseen: bool = False, without: Collection[str] = ()) -> list[tuple[str, int]]:
    """So many different sentences with their labels, none of them in `without`."""
    rng = Random(f"opinions {seed} {unseen}")
    found: dict[str, int] = {}
    while len(found) < count:
        text, label = sentence(rng, unseen=unseen)
        if text not in without:
            found[text] = label
    return list(found.items())


class Vocabulary:
    """Words by number. 0 is no word: what fills up the shorter sentences of a batch."""

    def __init__(self, texts: list[str]):
        self.words = ("", *sorted({word for text in texts for word in text.split()}))
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: list[str]) -> tuple[Int[Tensor, "count time"], Int[Tensor, " count"]]:
        """The words' numbers, each row filled up with 0, and how many words there are.

        Raises ValueError for a word that is not in the vocabulary.
        """
        rows = [text.split() for text in texts]
        unknown = sorted({word for row in rows for word in row} - set(self.number))
        if unknown:
            raise ValueError(f"not in the vocabulary of {len(self) - 1} words: {', '.join(unknown)}")
        lengths = torch.tensor([len(row) for row in rows])
        numbers = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for place, row in enumerate(rows):
            numbers[place, : len(row)] = torch.tensor([self.number[word] for word in row])
        return numbers, lengths


def bag_of_words(numbers: Int[Tensor, "count time"], vocab: int) -> Float[Tensor, "count vocab"]:
    """How often each word stands in each sentence; the 0 that fills up is no word and counts nothing."""
    # exercise 0.25: count words
    counts = torch.zeros(len(numbers), vocab, device=numbers.device)
    counts.scatter_add_(1, numbers, torch.ones_like(numbers, dtype=counts.dtype))
    counts[:, 0] = 0.0
    return counts
    # end exercise


def bigrams(texts: list[str]) -> list[str]:
    """Each pair of neighboring words as one word beside the words themselves: what a bag of bigrams counts."""
    found = []
    for text in texts:
        row = text.split()
        found.append(" ".join([*row, *(f"{one}_{two}" for one, two in pairwise(row))]))
    return found
