"""Who sees whom inside the Q-Former: one set of weights does three tasks, told apart by their masks alone (figure 2).

The sequence is always [queries, text]. In the course's mask algebra (shared.attention):

    contrastive   queries and text are different segments: neither sees the other
    matching      one segment: all see all
    generation    causal, but the queries are a span: they see each other both ways, and of the text nothing;
                  a word sees all queries, which stand before it, and the words before it

A picture of all three: `visible(task, queries, segments)`.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from shared.attention import Mask

TASKS = ("contrastive", "matching", "generation")


def task_mask(task: str, queries: int, segments: Int[Tensor, "batch text"]) -> Mask:
    """The self-attention mask of a task (arXiv:2301.12597, section 3.2) over [queries, text].

    segments  0 for a word, −1 for padding. Raises ValueError for another task.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}: choose one of {', '.join(TASKS)}")
    # exercise 3.3: three masks from segments and spans
    one_each = segments.new_zeros(segments.shape[0], queries)
    if task == "contrastive":
        of_text = torch.where(segments >= 0, 1, segments)
        together = torch.cat([one_each, of_text], dim=1)
        return Mask(segment_q=together, segment_k=together)
    together = torch.cat([one_each, segments], dim=1)
    if task == "matching":
        return Mask(segment_q=together, segment_k=together)
    spans = torch.cat([one_each, torch.full_like(segments, -1)], dim=1)
    return Mask(causal=True, segment_q=together, segment_k=together, span_q=spans, span_k=spans)
    # end exercise


def visible(
    task: str, queries: int, segments: Int[Tensor, "batch text"]
) -> Bool[Tensor, "batch query_and_text query_and_text"]:
    """The mask spelled out for every pair, for a picture: row i sees column j."""
    length = queries + segments.shape[1]
    return task_mask(task, queries, segments).visible(length, length)
