"""The baseline of the decoder: an n-gram model with Kneser–Ney smoothing."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence


class KneserNey:
    """Interpolated Kneser–Ney smoothing of some order, with one discount (Chen & Goodman, 1998, section 2.7).

    Every count is reduced by `discount`, and the freed probability goes to the model of the next lower order. There a
    token counts by the number of *different* contexts it follows, not by its frequency: "Francisco" is frequent, but
    follows one word only. Below order 1 every token of the vocabulary is equally likely.

    Raises ValueError for an order below 1 or a discount outside (0, 1).
    """

    def __init__(self, documents: Sequence[Sequence[int]], vocab_size: int, *, order: int = 4, discount: float = 0.75):
        if order < 1 or not 0 < discount < 1:
            raise ValueError(f"order={order} must be at least 1, and discount={discount} between 0 and 1")
        self.vocab_size, self.order, self.discount = vocab_size, order, discount
        # counts[n][context of n tokens][token]
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for document in documents:
            for position, token in enumerate(document):
                for length in range(min(position, order - 1) + 1):
                    context = tuple(document[position - length : position])
                    # At the highest order, and where the context starts the document, every occurrence counts; at lower
                    # orders only the first one in every longer context.
                    longer_context = tuple(document[position - length - 1 : position])
                    every_occurrence = length in (order - 1, position)
                    if every_occurrence or token not in self.counts[length + 1][longer_context]:
                        self.counts[length][context][token] += 1
        self.totals = [{context: counts.total() for context, counts in level.items()} for level in self.counts]

    def probability(self, context: Sequence[int], token: int) -> float:
        """Return the probability of `token` after `context`, of which the last `order` − 1 tokens are used."""
        probability = 1 / self.vocab_size
        for length in range(min(len(context), self.order - 1) + 1):
            suffix = tuple(context[len(context) - length :])
            counts = self.counts[length].get(suffix)
            if not counts:
                break
            probability = interpolate(
                counts[token], len(counts), self.totals[length][suffix], self.discount, probability
            )
        return probability

    def document_bits(self, document: Sequence[int]) -> float:
        """Return the summed cross-entropy, in bits, of the document's tokens after the first."""
        return -sum(
            math.log2(self.probability(document[max(0, position - self.order + 1) : position], document[position]))
            for position in range(1, len(document))
        )


def interpolate(count: int, distinct: int, total: int, discount: float, lower_order: float) -> float:
    """Compute one step of Kneser–Ney: the discounted relative frequency, plus the freed mass times the lower order.

    count        occurrences of the token after the context
    distinct     number of different tokens after the context
    total        occurrences of any token after the context
    lower_order  probability of the token in the model of the next lower order
    """
    # exercise 0.44: one step of Kneser–Ney
    return max(count - discount, 0.0) / total + discount * distinct / total * lower_order
    # end exercise
