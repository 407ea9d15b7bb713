"""The same two losses where the batch lies spread over several processes, `rows` pairs in each.

Each process computes its own part L_p. Their mean over processes is the loss of the whole batch, and data-parallel
training, which averages the gradients of the weights, makes it the gradient of the whole batch too. Without torchrun
both are the plain losses.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_02_clip.model.losses import sigmoid_loss, similarity
from shared.distributed import all_gather_with_gradients, rank, ring_exchange, world_size


def gathered_info_nce(
    images: Float[Tensor, "rows width"], texts: Float[Tensor, "rows width"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """CLIP's loss with the negatives of all processes: my rows and my columns of the great matrix, never all of it.

    Everyone's vectors come here, and the gradients go home: without those, a text would learn nothing from the
    images of other processes.
    """
    all_images, all_texts = all_gather_with_gradients(images), all_gather_with_gradients(texts)
    own = torch.arange(len(images), device=images.device) + rank() * len(images)
    by_image = F.cross_entropy(logit_scale * similarity(images, all_texts), own)
    by_text = F.cross_entropy(logit_scale * similarity(texts, all_images), own)
    return 0.5 * (by_image + by_text)


def ring_sigmoid_loss(
    images: Float[Tensor, "rows width"],
    texts: Float[Tensor, "rows width"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """SigLIP's loss with the negatives of all processes, one neighbor's texts at a time (arXiv:2303.15343, section 3.3).

    My images stay, the texts travel round the ring. Only [rows, rows] numbers are ever compared at once, and nothing is
    gathered: it is a sum over pairs, so the pairs may come in any order.
    """
    loss = sigmoid_loss(images, texts, logit_scale, logit_bias)
    for _ in range(world_size() - 1):
        texts = ring_exchange(texts)
        # None of these texts belongs to any of my images.
        logits = logit_scale * similarity(images, texts) + logit_bias
        loss = loss - F.logsigmoid(-logits).sum() / len(images)
    return loss
