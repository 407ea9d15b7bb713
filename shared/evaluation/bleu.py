"""BLEU: the precision of a caption's n-grams with respect to its references (Papineni et al. 2002)."""

import math
from collections import Counter
from collections.abc import Sequence

from shared.evaluation.texts import require_words

MAX_N = 4
# pycocoevalcap adds these to avoid division by zero; a caption without a match therefore scores slightly above 0.
SMALL, TINY = 1e-9, 1e-15

Words = Sequence[str]
Ngram = tuple[str, ...]


def count_ngrams(words: Words) -> Counter[Ngram]:
    """Count the runs of one to four words."""
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, MAX_N + 1)
        for start in range(len(words) - length + 1)
    )


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[float, float, float, float]:
    """Return BLEU-1 to BLEU-4 of a whole set of captions, each with its references; from 0 to 1.

    The precision of n-grams is the fraction of the candidates' n-grams that a reference contains. A repeated n-gram
    counts at most as often as it occurs in one reference. BLEU-n is the geometric mean of the precisions of 1 … n, over
    the whole set (not a mean over captions). Short captions have high precision, so a set shorter than its references
    is multiplied by exp(1 − reference length / length). The reference length of a candidate is that of the reference
    nearest in length, the shorter of two.

    Raises ValueError when a text stands where a list of words is due.
    """
    require_words(candidates, references)
    matches, totals = [0] * MAX_N, [0] * MAX_N
    length = reference_length = 0
    for candidate, its_references in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += min((abs(len(words) - len(candidate)), len(words)) for words in its_references)[1]
        limits = Counter[Ngram]()
        for words in its_references:
            limits |= count_ngrams(words)
        for ngram, count in (count_ngrams(candidate) & limits).items():
            matches[len(ngram) - 1] += count
        for size in range(MAX_N):
            totals[size] += max(0, len(candidate) - size)
    ratio = (length + TINY) / (reference_length + SMALL)
    brevity_penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for size in range(MAX_N):
        product *= (matches[size] + TINY) / (totals[size] + SMALL)
        scores.append(product ** (1 / (size + 1)) * brevity_penalty)
    bleu_1, bleu_2, bleu_3, bleu_4 = scores
    return bleu_1, bleu_2, bleu_3, bleu_4
