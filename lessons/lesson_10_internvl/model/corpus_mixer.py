"""Mix corpora by tokens: text alone and multimodal data in one stream from the start (arXiv:2504.10479, section 2.2).

InternVL3 trains on about 50 billion tokens of text alone and 150 billion of multimodal data, a ratio of 1 : 3. A
mixture is stated in tokens, since the model trains on tokens; documents are drawn, and corpora differ in their lengths.
"""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def document_probabilities(
    token_fractions: Float[Tensor, "corpora"], mean_lengths: Float[Tensor, "corpora"]
) -> Float[Tensor, "corpora"]:
    """Return with which probability each corpus gives the next document, so that it gives its fraction of the tokens.

    token_fractions  of each corpus, at least 0; they are divided by their sum
    mean_lengths     mean number of tokens per document of each corpus

    With probabilities p and mean lengths l, the expected fraction of the tokens is p · l / Σ p · l.
    """
    # exercise 10.6: documents for a mixture of tokens
    weights = token_fractions / mean_lengths
    return weights / weights.sum()
    # end exercise


class Corpus(NamedTuple):
    """The length of each document of a corpus in tokens, and the corpus's fraction of the mixture's tokens."""

    lengths: Sequence[int]
    token_fraction: float


class Draw(NamedTuple):
    """One draw of the mixture: the name of a corpus, and the place of a document in it."""

    corpus: str
    document: int


class CorpusMixer:
    """Draw documents endlessly, so that each corpus gives its fraction of the tokens.

    Each corpus is shuffled, and again after all of its documents were drawn: no document is drawn a second time before
    all others of its corpus were drawn. The same seed gives the same stream.

    Raises ValueError for a corpus without documents, for lengths below 1, and for fractions below 0 or all 0.
    """

    def __init__(self, corpora: Mapping[str, Corpus], seed: int = 0):
        for name, corpus in corpora.items():
            if not corpus.lengths or min(corpus.lengths) < 1 or corpus.token_fraction < 0:
                raise ValueError(
                    f"the corpus {name!r} has {len(corpus.lengths)} documents and the fraction "
                    f"{corpus.token_fraction}; expected at least one document, each of at least 1 token, and a "
                    "fraction of at least 0"
                )
        if sum(corpus.token_fraction for corpus in corpora.values()) <= 0:
            raise ValueError("no corpus has a fraction above 0; expected at least one")
        self.corpora = dict(corpora)
        fractions = torch.tensor([corpus.token_fraction for corpus in corpora.values()], dtype=torch.float64)
        means = torch.tensor([sum(each.lengths) / len(each.lengths) for each in corpora.values()], dtype=torch.float64)
        self.probabilities: list[float] = document_probabilities(fractions, means).tolist()
        self.tokens = dict.fromkeys(self.corpora, 0)
        self._random = Random(seed)
        self._left: dict[str, list[int]] = {name: [] for name in self.corpora}

    def __iter__(self) -> Iterator[Draw]:
        return self

    def __next__(self) -> Draw:
        (name,) = self._random.choices(list(self.corpora), self.probabilities)
        lengths, left = self.corpora[name].lengths, self._left[name]
        if not left:
            left.extend(range(len(lengths)))
            self._random.shuffle(left)
        document = left.pop()
        self.tokens[name] += lengths[document]
        return Draw(name, document)

    def token_fractions(self) -> dict[str, float]:
        """Return which fraction of the drawn tokens came from each corpus. Raises ValueError before the first."""
        total = sum(self.tokens.values())
        if not total:
            raise ValueError("no document was drawn yet")
        return {name: tokens / total for name, tokens in self.tokens.items()}

    def epochs(self) -> dict[str, float]:
        """Return how often the tokens of each corpus were drawn, 1.0 for each once."""
        return {name: self.tokens[name] / sum(corpus.lengths) for name, corpus in self.corpora.items()}
