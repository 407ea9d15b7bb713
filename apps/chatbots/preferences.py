"""Pairs of answers to the same questions, the better one first, and what a model that no longer changes says of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from apps.chatbots.conversations import talk, trimmed
from apps.chatbots.dialogues import Dialogue
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.finetuning import collate, dpo_loss, response_log_probability
from shared.tokenizers import ChatTemplate
from shared.training import Batches


class Pairs(NamedTuple):
    """A row for each question; along the second axis the preferred answer's conversation, then the rejected one's."""

    tokens: Tensor
    answers: Tensor
    segments: Tensor


def pairs_of(template: ChatTemplate, dialogues: Sequence[Dialogue]) -> Pairs:
    """Patient is preferred to blunt."""
    both = [talk(template, each.question, answer) for each in dialogues for answer in (each.patient, each.blunt)]
    return Pairs(*(part.unflatten(0, (-1, 2)) for part in collate(both)))


def log_probabilities(model: LanguageModel, pairs: Pairs) -> Float[Tensor, "pairs 2"]:
    """log p of the preferred answers and of the rejected ones, each as a whole."""
    tokens, answers = pairs.tokens.flatten(0, 1), pairs.answers.flatten(0, 1)
    return response_log_probability(model(tokens), tokens, answers).unflatten(0, (-1, 2))


@torch.no_grad()
def remembered(model: LanguageModel, pairs: Pairs, batch_size: int = 64) -> Float[Tensor, "pairs 2"]:
    """What the reference model says of every pair, once and for all.

    It never changes, so what it says need not be asked for again: of the two models that DPO speaks of only one is in memory
    while the other learns.
    """
    was_training = model.training
    model.eval()
    device = model.norm.weight.device
    rows = torch.arange(len(pairs.tokens)).split(batch_size)
    parts = [Pairs(*trimmed(*(part[some].to(device) for part in pairs))) for some in rows]
    said = torch.cat([log_probabilities(model, part).cpu() for part in parts])
    model.train(was_training)
    return said


class PreferenceBatches:
    """Shuffled batches (pairs, what the reference says of them); `batches(number)` is a pure function."""

    def __init__(self, pairs: Pairs, reference: Float[Tensor, "pairs 2"], *, batch_size: int, seed: int):
        self.pairs, self.reference = pairs, reference
        self.rows = Batches(torch.arange(len(reference)), batch_size=min(batch_size, len(reference)), seed=seed)

    def __call__(self, number: int) -> tuple[Pairs, Tensor]:
        rows = self.rows(number)
        return Pairs(*trimmed(*(part[rows] for part in self.pairs))), self.reference[rows]


def preference_loss(
    model: LanguageModel, batch: tuple[Pairs, Tensor], beta: float, anchor: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Direct preference optimization of a batch of pairs, plus `anchor` times the surprise at a token of the preferred answers.

    The preference alone asks that the preferred answer loses less than the rejected one, not that it is likely: both may
    fall, and the model ends by saying something third. The second term holds the preferred one up (arXiv:2404.19733, eq. 1).
    """
    pairs, reference = batch
    learned = log_probabilities(model, pairs)
    loss, measured = dpo_loss(learned[:, 0], learned[:, 1], reference[:, 0], reference[:, 1], beta)
    surprise = -learned[:, 0].sum() / pairs.answers[:, 0, 1:].sum()
    return loss + anchor * surprise, measured | {"preference_loss": loss.detach()}
