"""The self-attention masks of the Q-Former's three tasks (arXiv:2301.12597, section 3.2 and figure 2).

The sequence is always [queries, text]. In the mask algebra of `shared.attention`:

    contrastive   queries and text are different segments and do not attend to each other
    matching      one segment: every token attends to every token
    generation    causal, with the queries as one span: queries attend to each other in both directions and to no text;
                  a text token attends to all queries, which come first, and to the text tokens up to itself
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from shared.attention import Mask

TASKS = ("contrastive", "matching", "generation")


def task_mask(task: str, queries: int, segments: Int[Tensor, "batch text"]) -> Mask:
    """Return the self-attention mask of a task over [queries, text] (arXiv:2301.12597, section 3.2).

    segments  0 for a text token, −1 for padding

    Raises ValueError for an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; choose one of {', '.join(TASKS)}")
    # exercise 3.3: three masks from segments and spans
    query_segments = segments.new_zeros(segments.shape[0], queries)
    if task == "contrastive":
        text_segments = torch.where(segments >= 0, 1, segments)
        all_segments = torch.cat([query_segments, text_segments], dim=1)
        return Mask(segment_q=all_segments, segment_k=all_segments)
    all_segments = torch.cat([query_segments, segments], dim=1)
    if task == "matching":
        return Mask(segment_q=all_segments, segment_k=all_segments)
    spans = torch.cat([query_segments, torch.full_like(segments, -1)], dim=1)
    return Mask(causal=True, segment_q=all_segments, segment_k=all_segments, span_q=spans, span_k=spans)
    # end exercise


def task_mask_matrix(
    task: str, queries: int, segments: Int[Tensor, "batch text"]
) -> Bool[Tensor, "batch query_and_text query_and_text"]:
    """Return the mask of a task as a dense matrix: entry (i, j) is True where token i attends to token j."""
    length = queries + segments.shape[1]
    return task_mask(task, queries, segments).visible(length, length)
