"""Draw a curve in one line of text, from eight block characters: ▇▆▄▃▂▂▁▁"""

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Return a line of at most `width` characters, each the mean of a group of values; NaN and infinity leave a gap.

    The lowest group becomes the lowest block and the highest the highest: the line shows the shape, not the size.
    """
    count = min(width, len(values))
    edges = [len(values) * group // count for group in range(count + 1)] if count else []
    groups = [values[start:end] for start, end in pairwise(edges)]
    means = [sum(group) / len(group) for group in groups]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return " " * count
    low, high = min(finite), max(finite)
    # A flat curve has no range to divide by; it is drawn with the lowest block.
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] if math.isfinite(mean) else " " for mean in means)
