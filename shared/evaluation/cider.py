"""CIDEr-D: does a caption say what people say about *this* picture, and not about every one? (arXiv:1411.5726)"""

import math
from collections import Counter
from collections.abc import Sequence

from shared.evaluation.bleu import LONGEST, Words, ngrams

SIGMA = 6.0  # words by which lengths may differ before it costs much


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """The mean over captions of CIDEr-D, from 0 to 10; usually printed as it is, where 1 is about as good as people.

    Each n-gram is weighted by how rare it is: log(pictures / pictures whose references have it), so that "a man" counts
    little and "accordion" much. A caption is then a vector for each length of n-grams, and its score the cosine with
    each reference's, a mean over references and lengths, times 10. Two things keep it from being gamed (the D): a
    repeated n-gram counts only as often as in the reference, and another length costs exp(−difference² / 2σ²).

    With a single picture nothing is rare, and the score is 0: it says something about sets only.
    """
    frequency = Counter(gram for own in references for gram in {gram for words in own for gram in ngrams(words)})
    pictures = math.log(len(references))

    def weighted(words: Words) -> list[dict[tuple[str, ...], float]]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
        for gram, count in ngrams(words).items():
            vectors[len(gram) - 1][gram] = count * (pictures - math.log(max(1, frequency[gram])))
        return vectors

    total = 0.0
    for candidate, own in zip(candidates, references, strict=True):
        mine = weighted(candidate)
        total += sum(_similarity(mine, weighted(words), len(candidate) - len(words)) for words in own) / len(own)
    return 10 * total / len(candidates)


def _similarity(mine: list[dict], theirs: list[dict], difference: int) -> float:
    """The clipped cosine, a mean over the lengths of n-grams."""
    total = 0.0
    for left, right in zip(mine, theirs, strict=True):
        norms = math.sqrt(sum(value**2 for value in left.values())) * math.sqrt(sum(v**2 for v in right.values()))
        if norms:
            total += (
                sum(min(value, right.get(gram, 0.0)) * right.get(gram, 0.0) for gram, value in left.items()) / norms
            )
    return total / LONGEST * math.exp(-(difference**2) / (2 * SIGMA**2))
