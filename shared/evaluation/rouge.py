"""ROUGE-L: the longest common subsequence of a caption and a reference (Lin 2004)."""

from collections.abc import Sequence

from shared.evaluation.bleu import Words
from shared.evaluation.texts import require_words

BETA = 1.2  # weight of recall relative to precision


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Return the mean ROUGE-L over captions, from 0 to 1.

    The longest common subsequence has the same words in the same order, with other words allowed between them. Its
    length divided by the caption's is the precision, divided by the reference's the recall; the score is their F with
    β = 1.2. The best precision and the best recall may come from different references, as in COCO's own evaluation.

    Raises ValueError when a text stands where a list of words is due.
    """
    require_words(candidates, references)
    total = 0.0
    for candidate, its_references in zip(candidates, references, strict=True):
        # COCO's evaluation splits an empty caption into one empty word.
        words = list(candidate) or [""]
        pairs = [
            (longest_common_subsequence(words, list(reference) or [""]), len(reference) or 1)
            for reference in its_references
        ]
        precision = max(common for common, _ in pairs) / len(words)
        recall = max(common / length for common, length in pairs)
        if precision and recall:
            total += (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return total / len(candidates)


def longest_common_subsequence(left: Words, right: Words) -> int:
    """Return the length of the longest common subsequence, by dynamic programming row by row."""
    above = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for index, other in enumerate(right):
            row.append(above[index] + 1 if word == other else max(above[index + 1], row[index]))
        above = row
    return above[-1]
