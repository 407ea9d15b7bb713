"""What the first stage learns from: three losses on one batch of pairs (arXiv:2301.12597, section 3.2)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def similarities(
    images: Float[Tensor, "images queries shared"], texts: Float[Tensor, "texts shared"]
) -> Float[Tensor, "images texts"]:
    """How well each image fits each text: the cosine of the query that fits it best.

    Both are of length 1. Different queries may speak for an image, one of its colours and another of its shapes.
    """
    # exercise 3.4: one score from many queries
    return torch.einsum("iqs,ts->iqt", images, texts).amax(dim=1)
    # end exercise


def contrastive_loss(scores: Float[Tensor, "pairs pairs"]) -> Float[Tensor, ""]:
    """Image–text contrast (ITC): among the texts of the batch each image finds its own, and each text its image.

    scores  similarities over the temperature; the pairs stand on the diagonal
    """
    own = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def negative_chances(scores: Float[Tensor, "anchors candidates"]) -> Float[Tensor, "anchors candidates"]:
    """By which chance each candidate becomes the anchor's negative: the better it fits, the likelier (arXiv:2107.07651, section 3.2).

    Never its own partner, which stands on the diagonal. Nothing is learned through it.
    """
    # exercise 3.5: hard negatives
    chances = scores.detach().softmax(dim=1)
    chances = chances.masked_fill(torch.eye(len(scores), dtype=torch.bool, device=scores.device), 0.0)
    # Were all others hopeless, their chances would round to nothing, and there would be nobody to draw.
    chances = chances + 1e-6 * (1 - torch.eye(len(scores), device=scores.device))
    return chances / chances.sum(dim=1, keepdim=True)
    # end exercise


def matching_loss(matched: Float[Tensor, "pairs 2"], mismatched: Float[Tensor, "negatives 2"]) -> Float[Tensor, ""]:
    """Image–text matching (ITM): is this the text of that image? Logits (no, yes) of true pairs and of hard negatives."""
    logits = torch.cat([matched, mismatched])
    truth = torch.cat([torch.ones(len(matched)), torch.zeros(len(mismatched))]).long().to(logits.device)
    return F.cross_entropy(logits, truth)


def writing_loss(
    logits: Float[Tensor, "batch text vocab"], tokens: Int[Tensor, "batch text"], segments: Int[Tensor, "batch text"]
) -> Float[Tensor, ""]:
    """Image-grounded text generation (ITG), and the second stage's loss: the mean surprise at each next word, in nats.

    Row i of the logits speaks of token i + 1. Of padding (segment −1) nothing is asked.
    """
    # exercise 3.6: the surprise at the words, and at nothing else
    asked = segments[:, 1:] >= 0
    return F.cross_entropy(logits[:, :-1][asked], tokens[:, 1:][asked])
    # end exercise
