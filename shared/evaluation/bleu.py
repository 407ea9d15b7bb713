"""BLEU: how many of a caption's words, pairs, triples and fours people have used too (Papineni et al. 2002)."""

import math
from collections import Counter
from collections.abc import Sequence

LONGEST = 4
# What pycocoevalcap adds so that nothing is divided by zero; with it a caption without a single match has not quite 0.
SMALL, TINY = 1e-9, 1e-15

Words = Sequence[str]


def ngrams(words: Words) -> Counter[tuple[str, ...]]:
    """How often each run of one to four words occurs."""
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, LONGEST + 1)
        for start in range(len(words) - length + 1)
    )


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 of a whole set of captions, each with its references; from 0 to 1.

    The precision of n-grams: of all that the candidates have, the share that a reference has too; one that a candidate
    repeats counts as often as it occurs in one reference at most. BLEU-n is the geometric mean of the precisions
    of 1 … n, over the whole set (not a mean over captions). Since a precision is easily had by saying little, a
    set shorter than its references is punished: exp(1 − reference length / length), where each candidate
    has the length of the reference nearest to its own, the shorter of two.
    """
    matched, made = [0] * LONGEST, [0] * LONGEST
    length = reference_length = 0
    for candidate, own in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += min((abs(len(words) - len(candidate)), len(words)) for words in own)[1]
        most = Counter[tuple[str, ...]]()
        for words in own:
            most |= ngrams(words)
        for gram, count in (ngrams(candidate) & most).items():
            matched[len(gram) - 1] += count
        for size in range(LONGEST):
            made[size] += max(0, len(candidate) - size)
    ratio = (length + TINY) / (reference_length + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for size in range(LONGEST):
        product *= (matched[size] + TINY) / (made[size] + SMALL)
        scores.append(product ** (1 / (size + 1)) * brevity)
    return tuple(scores)
