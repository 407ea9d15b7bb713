"""The losses of the first stage, on one batch of image–text pairs (arXiv:2301.12597, section 3.2)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def image_text_similarity(
    image_embeddings: Float[Tensor, "images queries projection"], text_embeddings: Float[Tensor, "texts projection"]
) -> Float[Tensor, "images texts"]:
    """Return the similarity of every image with every text: the largest cosine over the image's queries.

    All embeddings have length 1. Different queries can match different texts of the same image, one its colors and
    another its shapes.
    """
    # exercise 3.4: the similarity is the maximum over queries
    return torch.einsum("iqd,td->iqt", image_embeddings, text_embeddings).amax(dim=1)
    # end exercise


def contrastive_loss(scores: Float[Tensor, "pairs pairs"]) -> Float[Tensor, ""]:
    """Return the image–text contrastive loss (ITC): cross-entropy over the batch's texts and over its images.

    scores  similarities divided by the temperature, with the true pairs on the diagonal
    """
    targets = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2


def hard_negative_probabilities(scores: Float[Tensor, "anchors candidates"]) -> Float[Tensor, "anchors candidates"]:
    """Return the probability of each candidate as the anchor's negative: a softmax (arXiv:2107.07651, section 3.2).

    The true partner, on the diagonal, has probability 0. No gradient flows through the probabilities.
    """
    # exercise 3.5: hard negatives
    probabilities = scores.detach().softmax(dim=1)
    probabilities = probabilities.masked_fill(torch.eye(len(scores), dtype=torch.bool, device=scores.device), 0.0)
    # Without this constant all probabilities of a row could round to 0, and no negative could be drawn.
    probabilities = probabilities + 1e-6 * (1 - torch.eye(len(scores), device=scores.device))
    return probabilities / probabilities.sum(dim=1, keepdim=True)
    # end exercise


def matching_loss(
    positive_logits: Float[Tensor, "pairs 2"], negative_logits: Float[Tensor, "negatives 2"]
) -> Float[Tensor, ""]:
    """Return the image–text matching loss (ITM): cross-entropy on true pairs and hard negatives."""
    logits = torch.cat([positive_logits, negative_logits])
    labels = torch.cat([torch.ones(len(positive_logits)), torch.zeros(len(negative_logits))]).long().to(logits.device)
    return F.cross_entropy(logits, labels)


def language_modeling_loss(
    logits: Float[Tensor, "batch text vocab"], token_ids: Int[Tensor, "batch text"], segments: Int[Tensor, "batch text"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of each next token in nats: the loss of ITG and of the second stage.

    Row i of the logits predicts token i + 1. Padding (segment −1) is left out.
    """
    # exercise 3.6: next-token cross-entropy without padding
    loss_mask = segments[:, 1:] >= 0
    return F.cross_entropy(logits[:, :-1][loss_mask], token_ids[:, 1:][loss_mask])
    # end exercise
