"""CLIP's and SigLIP's loss for a batch that is split over processes, `rows` pairs in each.

Each process computes its own part L_p. The mean of the parts over processes is the loss of the whole batch.
Data-parallel training averages the weights' gradients, so it gets the gradient of the whole batch too. In a single
process, both functions equal the losses in losses.py.
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
    """Return this process's part of InfoNCE with the negatives of all processes: its rows and columns of the logits.

    The vectors of all processes are gathered, and gradients flow back to the process that computed each vector.
    Without these gradients, a text would learn nothing from the images of other processes.
    """
    all_images, all_texts = all_gather_with_gradients(images), all_gather_with_gradients(texts)
    labels = torch.arange(len(images), device=images.device) + rank() * len(images)
    image_to_text = F.cross_entropy(logit_scale * similarity(images, all_texts), labels)
    text_to_image = F.cross_entropy(logit_scale * similarity(texts, all_images), labels)
    return 0.5 * (image_to_text + text_to_image)


def ring_sigmoid_loss(
    images: Float[Tensor, "rows width"],
    texts: Float[Tensor, "rows width"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Return this process's part of the sigmoid loss, exchanging texts in a ring (arXiv:2303.15343, section 3.3).

    Images stay in their process and texts move to the next one. The loss is a sum over pairs, so their order does not
    matter. The forward pass computes [rows, rows] logits at a time. In training, autograd keeps those of every step
    until the backward pass: [rows, processes · rows] in all, as many as one matrix of logits in `gathered_info_nce`.
    """
    loss = sigmoid_loss(images, texts, logit_scale, logit_bias)
    for _ in range(world_size() - 1):
        texts = ring_exchange(texts)
        # None of these texts matches any image of this process.
        logits = logit_scale * similarity(images, texts) + logit_bias
        loss = loss - F.logsigmoid(-logits).sum() / len(images)
    return loss
