"""Sentences of praise or blame about toy-world objects: "anna says that the small red circle is not very dull".

Half of the sentences reverse an opinion by a negation. The pairs of negation and opinion are split: some occur only in
the test. Word counts tell that "not" and "dull" occur; their combined meaning depends on the order.
"""

from collections.abc import Collection
from itertools import pairwise
from random import Random
from typing import NamedTuple

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
PEOPLE = ("anna", "ben", "my sister", "the teacher", "our neighbor", "everyone")
FRAMES = (
    "the {scene_object} is {opinion}",
    "{person} says that the {scene_object} is {opinion}",
    "{person} finds the {scene_object} {opinion}",
    "{opinion} is what {person} calls the {scene_object}",
    "the {scene_object} {place} is {opinion} , says {person}",
)
# Each opinion word occurs with four negations in training, and with the other two only in the test.
UNSEEN_NEGATIONS = frozenset(
    (negation, opinion)
    for rank, opinion in enumerate(word for pair in zip(GOOD, BAD, strict=True) for word in pair)
    for negation in (NEGATIONS[rank // 2 % 6], NEGATIONS[(rank // 2 + 2 + rank % 2) % 6])
)
SEEN_NEGATIONS = tuple((n, o) for n in NEGATIONS for o in GOOD + BAD if (n, o) not in UNSEEN_NEGATIONS)
TRAINING_SENTENCES, TEST_SENTENCES = 3000, 1000


def sentence(rng: Random, *, unseen: bool) -> tuple[str, int]:
    """Return a sentence and its label: 1 for praise, 0 for blame.

    Half of the sentences contain a negated opinion, from the unseen pairs if `unseen`, else from the seen ones.
    """
    degree = rng.choice(DEGREES)
    good = rng.random() < 0.5
    if rng.random() < 0.5:
        pairs = [pair for pair in (sorted(UNSEEN_NEGATIONS) if unseen else SEEN_NEGATIONS) if (pair[1] in BAD) == good]
        negation, word = rng.choice(pairs)
        opinion = f"{negation} {degree} {word}"
    else:
        opinion = f"{degree} {rng.choice(GOOD if good else BAD)}"
    color, shape = rng.choice(SEEN_PAIRS)
    scene_object = Description(rng.choice((None, *SIZES)), rng.choice((None, *TEXTURES)), color, shape)
    text = rng.choice(FRAMES).format(
        scene_object=words(scene_object),
        place=rng.choice(list(WHERE.values())),
        person=rng.choice(PEOPLE),
        opinion=opinion,
    )
    return " ".join(text.split()), int(good)


def sentences(count: int, seed: int, *, unseen: bool = False, exclude: Collection[str] = ()) -> list[tuple[str, int]]:
    """Return `count` different sentences with their labels; none of them is in `exclude`."""
    rng = Random(f"opinions {seed} {unseen}")
    labels: dict[str, int] = {}
    while len(labels) < count:
        text, label = sentence(rng, unseen=unseen)
        if text not in exclude:
            labels[text] = label
    return list(labels.items())


class Split(NamedTuple):
    """Sentences of one split and their labels."""

    texts: list[str]
    labels: Int[Tensor, " count"]


def load_splits(seed: int) -> tuple[Split, Split, Split]:
    """Return three splits: training, a test of seen pairs of negation and opinion, and a test of unseen pairs."""
    pool = sentences(TRAINING_SENTENCES + TEST_SENTENCES, seed)
    # A sentence without a negation could be drawn twice; it must not be in both training and test.
    unseen = sentences(TEST_SENTENCES, seed, unseen=True, exclude={text for text, _ in pool})
    parts = pool[:TRAINING_SENTENCES], pool[TRAINING_SENTENCES:], unseen
    training, test_seen, test_unseen = (
        Split([text for text, _ in part], torch.tensor([label for _, label in part])) for part in parts
    )
    return training, test_seen, test_unseen


class Vocabulary:
    """Map words to token ids. Id 0 is padding, which fills the shorter sentences of a batch."""

    def __init__(self, texts: list[str]):
        self.words = ("", *sorted({word for text in texts for word in text.split()}))
        self.ids = {word: token_id for token_id, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: list[str]) -> tuple[Int[Tensor, "count time"], Int[Tensor, " count"]]:
        """Return the token ids, padded with 0, and the number of words of each text.

        Raises ValueError for a word that is not in the vocabulary.
        """
        rows = [text.split() for text in texts]
        unknown = sorted({word for row in rows for word in row} - set(self.ids))
        if unknown:
            raise ValueError(f"not in the vocabulary of {len(self) - 1} words: {', '.join(unknown)}")
        lengths = torch.tensor([len(row) for row in rows])
        token_ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for index, row in enumerate(rows):
            token_ids[index, : len(row)] = torch.tensor([self.ids[word] for word in row])
        return token_ids, lengths


def bag_of_words(token_ids: Int[Tensor, "count time"], vocab_size: int) -> Float[Tensor, "count vocab_size"]:
    """Count the occurrences of each word in each sentence; padding (id 0) is not counted."""
    # exercise 0.25: count words
    counts = torch.zeros(len(token_ids), vocab_size, device=token_ids.device)
    counts.scatter_add_(1, token_ids, torch.ones_like(token_ids, dtype=counts.dtype))
    counts[:, 0] = 0.0
    return counts
    # end exercise


def add_bigrams(texts: list[str]) -> list[str]:
    """Append to each text its pairs of neighboring words, each joined to one word by an underscore."""
    result = []
    for text in texts:
        row = text.split()
        result.append(" ".join([*row, *(f"{first}_{second}" for first, second in pairwise(row))]))
    return result
