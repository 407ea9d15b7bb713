"""The rival of the decoder: an n-gram model, which counts what followed the last few tokens, and looks no further back."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence


class KneserNey:
    """Interpolated Kneser–Ney of some order, with one discount (Chen & Goodman, 1998, section 2.7).

    The best of the classic smoothings. From each count `discount` is taken away, and what that frees is given to the model of
    the order below; there a token counts by how many *different* contexts it has been seen to follow, not how often
    ("Francisco" is frequent and follows one word only). At the bottom every token of the vocabulary is equally likely.

    Raises ValueError for an order below 1 or a discount outside (0, 1).
    """

    def __init__(self, documents: Sequence[Sequence[int]], vocab: int, *, order: int = 4, discount: float = 0.75):
        if order < 1 or not 0 < discount < 1:
            raise ValueError(f"order={order} must be at least 1, and discount={discount} between 0 and 1")
        self.vocab, self.order, self.discount = vocab, order, discount
        # counts[n][context of n tokens][token]
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for document in documents:
            for place, token in enumerate(document):
                for length in range(min(place, order - 1) + 1):
                    context = tuple(document[place - length : place])
                    # At the highest order, and where a document begins (nothing can stand before), each occurrence counts;
                    # below, only the first one in every longer context.
                    longer = tuple(document[place - length - 1 : place])
                    whole = length in (order - 1, place)
                    if whole or token not in self.counts[length + 1][longer]:
                        self.counts[length][context][token] += 1
        self.totals = [{context: found.total() for context, found in level.items()} for level in self.counts]

    def probability(self, context: Sequence[int], token: int) -> float:
        """How likely `token` is after `context`, of which the last `order` − 1 tokens count."""
        probability = 1 / self.vocab
        for length in range(min(len(context), self.order - 1) + 1):
            seen = tuple(context[len(context) - length :])
            found = self.counts[length].get(seen)
            if not found:
                break
            probability = interpolated(found[token], len(found), self.totals[length][seen], self.discount, probability)
        return probability

    def surprise(self, document: Sequence[int]) -> float:
        """Bits that the tokens after the first cost, all together."""
        return -sum(
            math.log2(self.probability(document[max(0, place - self.order + 1) : place], document[place]))
            for place in range(1, len(document))
        )


def interpolated(count: int, kinds: int, total: int, discount: float, below: float) -> float:
    """One step of Kneser–Ney: the discounted share of a count, and what the discounts free times the order below.

    count  how often the token followed the context; total  how often any did; kinds  how many different ones did
    """
    # exercise 0.44: one step of Kneser–Ney
    return max(count - discount, 0.0) / total + discount * kinds / total * below
    # end exercise
