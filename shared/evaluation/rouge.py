"""ROUGE-L: the longest run of words, gaps allowed, that a caption has in common with a reference (Lin 2004)."""

from collections.abc import Sequence

from shared.evaluation.bleu import Words

BETA = 1.2  # recall counts this many times as much as precision


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """The mean over captions of ROUGE-L, from 0 to 1.

    With the longest common subsequence (words in the same order, others between them allowed): its length by the
    caption's is the precision, by the reference's the recall, and the score is their F with β = 1.2. The best precision
    and the best recall over the references may come from different ones, as in COCO's own evaluation.
    """
    total = 0.0
    for candidate, own in zip(candidates, references, strict=True):
        # COCO's evaluation cuts an empty caption into one empty word.
        mine = list(candidate) or [""]
        pairs = [(common_subsequence(mine, list(words) or [""]), len(words) or 1) for words in own]
        precision = max(common for common, _ in pairs) / len(mine)
        recall = max(common / length for common, length in pairs)
        if precision and recall:
            total += (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return total / len(candidates)


def common_subsequence(left: Words, right: Words) -> int:
    """The length of the longest common subsequence: row by row, each cell from its three older neighbors."""
    above = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for index, other in enumerate(right):
            row.append(above[index] + 1 if word == other else max(above[index + 1], row[index]))
        above = row
    return above[-1]
