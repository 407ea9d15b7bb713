"""CLIP's loss (InfoNCE) and SigLIP's loss (sigmoid): contrast matching pairs with all other pairs of a batch.

Both take unit vectors; row i of the images matches row i of the texts. Captions must be *unique* in a batch: if two
images share a caption, each loss penalizes the similarity of an image and a caption that describes it.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def similarity(
    images: Float[Tensor, "images width"], texts: Float[Tensor, "texts width"]
) -> Float[Tensor, "images texts"]:
    """Return the cosine similarity of every image and every text, for unit vectors."""
    return images @ texts.T


def info_nce(
    images: Float[Tensor, "batch width"], texts: Float[Tensor, "batch width"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Return CLIP's loss: the mean cross-entropy of image → text and text → image (arXiv:2103.00020, figure 3).

    `logit_scale` is one over the temperature; cosines are multiplied by it before the softmax.
    """
    # exercise 2.3: InfoNCE
    logits = logit_scale * similarity(images, texts)
    # The matching pairs are on the diagonal, for rows and for columns.
    labels = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels))
    # end exercise


def sigmoid_loss(
    images: Float[Tensor, "batch width"],
    texts: Float[Tensor, "batch width"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return SigLIP's loss: binary cross-entropy of each pair, summed per image (arXiv:2303.15343, algorithm 1).

    Each pair contributes independently, so the batch can be split over processes. The bias is initialized far below
    zero: only `batch` of the batch² pairs match, and this prior need not be learned.
    """
    # exercise 2.4: the sigmoid loss
    logits = logit_scale * similarity(images, texts) + logit_bias
    signs = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)
    # end exercise
