"""CIDEr-D: agreement with the references, where n-grams that are rare among images count more (arXiv:1411.5726)."""

import math
from collections import Counter
from collections.abc import Sequence

from shared.evaluation.bleu import MAX_N, Ngram, Words, count_ngrams
from shared.evaluation.texts import require_words

SIGMA = 6.0  # scale of the penalty for a difference in length, in words


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Return the mean CIDEr-D over captions, from 0 to 10; about 1 for human captions of photographs.

    Each n-gram has a weight: log(images / images whose references contain it), so that "a man" counts little and
    "accordion" much. A caption is one weighted vector per length of n-grams. Its score is the cosine with each
    reference's vector, averaged over references and lengths, times 10. Two changes prevent gaming (the D): a repeated
    n-gram counts only as often as in the reference, and another length costs exp(−difference² / 2σ²).

    With a single image every weight is log(1) = 0, and so is the score: CIDEr needs a set of images.

    Raises ValueError when a text stands where a list of words is due.
    """
    require_words(candidates, references)
    document_frequency = Counter(
        ngram
        for its_references in references
        for ngram in {ngram for words in its_references for ngram in count_ngrams(words)}
    )
    log_images = math.log(len(references))

    def weighted_vectors(words: Words) -> list[dict[Ngram, float]]:
        vectors: list[dict[Ngram, float]] = [{} for _ in range(MAX_N)]
        for ngram, count in count_ngrams(words).items():
            vectors[len(ngram) - 1][ngram] = count * (log_images - math.log(max(1, document_frequency[ngram])))
        return vectors

    total = 0.0
    for candidate, its_references in zip(candidates, references, strict=True):
        vectors = weighted_vectors(candidate)
        similarities = (
            _similarity(vectors, weighted_vectors(words), len(candidate) - len(words)) for words in its_references
        )
        total += sum(similarities) / len(its_references)
    return 10 * total / len(candidates)


def _similarity(candidate: list[dict[Ngram, float]], reference: list[dict[Ngram, float]], difference: int) -> float:
    """Return the clipped cosine, averaged over the lengths of n-grams, with the penalty for a difference in length."""
    total = 0.0
    for left, right in zip(candidate, reference, strict=True):
        norms = math.sqrt(sum(value**2 for value in left.values())) * math.sqrt(sum(v**2 for v in right.values()))
        if norms:
            total += (
                sum(min(value, right.get(ngram, 0.0)) * right.get(ngram, 0.0) for ngram, value in left.items()) / norms
            )
    return total / MAX_N * math.exp(-(difference**2) / (2 * SIGMA**2))
