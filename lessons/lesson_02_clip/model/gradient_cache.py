"""Train with a batch larger than memory: contrast all vectors, but store the activations of one chunk at a time.

A contrastive loss cannot be accumulated over small batches: batches of 64 give each image 63 negatives, however many
of them are summed. But the loss needs only the *vectors* of the large batch, which are small. The method
(arXiv:2101.06983, section 3.3): encode everything without storing activations; compute the loss and its gradient with
respect to the vectors; encode each chunk again, with activations, and backpropagate its part of that gradient. The
cost is a second forward pass; the memory is that of one chunk.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def encode_in_chunks(
    encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk: int
) -> Float[Tensor, "batch embedding"]:
    """Return the vectors and gradients of `encode(inputs)`, storing the activations of `chunk` rows at a time.

    `encode` must compute each row's vector from that row alone (no batch normalization). It draws the same random
    numbers (dropout, stochastic depth) both times. Raises ValueError for a chunk of no rows.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected the number of rows that fit into memory, at least 1")
    # PyTorch's activation checkpointing does this for each chunk: discard activations, recompute them when needed.
    return torch.cat([checkpoint(encode, rows, use_reentrant=False) for rows in inputs.split(chunk)])
