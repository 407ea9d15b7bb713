"""Two ways to say "this picture belongs to this caption, and to none of the others".

Both take unit vectors: row i of the images belongs to row i of the texts. So captions must be *unique* in a batch:
where two pictures share one, each is punished for liking the other's, which is its own.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def similarity(
    images: Float[Tensor, "images width"], texts: Float[Tensor, "texts width"]
) -> Float[Tensor, "images texts"]:
    """The cosine of every image with every text, for unit vectors."""
    return images @ texts.T


def info_nce(
    images: Float[Tensor, "batch width"], texts: Float[Tensor, "batch width"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """CLIP's loss (arXiv:2103.00020, figure 3): each image names its text among all, each text its image, both averaged.

    `logit_scale` is one over the temperature, by which cosines are multiplied before the softmax.
    """
    # exercise 2.3: InfoNCE
    logits = logit_scale * similarity(images, texts)
    # The right answers stand on the diagonal, whether one reads along rows or along columns.
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))
    # end exercise


def sigmoid_loss(
    images: Float[Tensor, "batch width"],
    texts: Float[Tensor, "batch width"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """SigLIP's loss (arXiv:2303.15343, algorithm 1): of each pair by itself, is it one? Summed, per image.

    No row needs to know another, so that the batch can be as small, or as spread over machines, as one likes. The bias
    starts far below zero: of batch² pairs only batch are true, and that should not have to be learned first.
    """
    # exercise 2.4: the sigmoid loss
    logits = logit_scale * similarity(images, texts) + logit_bias
    signs = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)
    # end exercise
