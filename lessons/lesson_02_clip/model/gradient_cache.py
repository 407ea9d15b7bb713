"""A batch larger than the memory: contrast all vectors, but keep the inner activations of a few pairs only.

A contrastive loss cannot be accumulated over small batches: 64 pairs at a time give each image 63 negatives, however
many such steps are added up. But the loss itself needs only the *vectors* of the large batch, and those are small.
So (arXiv:2101.06983, section 3.3): compute all vectors and forget how; compute the loss and its gradient by the vectors;
then compute each chunk's vectors once more, this time with notes, and pass on its share of that gradient. It costs a
second forward pass, and what stays in memory is one chunk.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def encode_in_chunks(
    encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk: int
) -> Float[Tensor, "batch embedding"]:
    """The same vectors and the same gradients as `encode(inputs)`, with the activations of `chunk` rows at a time.

    `encode` must give a row's vector from that row alone (no batch normalization). It draws the same random numbers
    (dropout, stochastic depth) both times. Raises ValueError for a chunk of no rows.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected the number of rows that memory holds, at least 1")
    # PyTorch's checkpoint does what the paper does for each chunk: forget now, and compute again when the gradient comes.
    return torch.cat([checkpoint(encode, rows, use_reentrant=False) for rows in inputs.split(chunk)])
