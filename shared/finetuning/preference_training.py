"""Direct preference optimization of a language model on pairs of answers to the same questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from shared.finetuning.conversations import question_and_answer, trim_padding
from shared.finetuning.preference import dpo_loss, response_log_probability
from shared.finetuning.supervised import collate
from shared.tokenizers import ChatTemplate
from shared.training import Batches, RunOptions, TrainingConfig, TrainingResult, train
from shared.transformer import Decoder


@dataclass(frozen=True)
class PreferenceRecipe:
    """Set the length, the step size and the loss of direct preference optimization.

    batch_size     pairs per step
    learning_rate  peak of AdamW's schedule
    beta           weight of the implicit reward; larger values hold the model closer to the reference
    anchor         weight of the cross-entropy of the preferred answers (see `preference_loss`); 0 is plain DPO
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 2e-4
    beta: float = 0.1
    anchor: float = 1.0

    def training_config(self, seed: int) -> TrainingConfig:
        """Return the training loop's settings: AdamW without weight decay, a tenth of the steps as warm-up."""
        return TrainingConfig(
            steps=self.steps,
            learning_rate=self.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            warmup_steps=self.steps // 10,
            seed=seed,
            log_every=max(1, self.steps // 20),
        )


class PreferencePairs(NamedTuple):
    """Hold one row per question; along the second axis the preferred conversation, then the rejected one."""

    token_ids: Int[Tensor, "pairs 2 length"]
    loss_mask: Bool[Tensor, "pairs 2 length"]
    segments: Int[Tensor, "pairs 2 length"]


def preference_pairs(template: ChatTemplate, examples: Sequence[tuple[str, str, str]]) -> PreferencePairs:
    """Encode (question, preferred answer, rejected answer) triples."""
    conversations = [
        question_and_answer(template, question, answer)
        for question, preferred, rejected in examples
        for answer in (preferred, rejected)
    ]
    token_ids, loss_mask, segments = (tensor.unflatten(0, (-1, 2)) for tensor in collate(conversations))
    return PreferencePairs(token_ids, loss_mask, segments)


def log_probabilities(model: Decoder, pairs: PreferencePairs) -> Float[Tensor, "pairs 2"]:
    """Return log p of each whole answer: the preferred ones in column 0, the rejected ones in column 1."""
    token_ids, loss_mask = pairs.token_ids.flatten(0, 1), pairs.loss_mask.flatten(0, 1)
    return response_log_probability(model(token_ids), token_ids, loss_mask).unflatten(0, (-1, 2))


@torch.no_grad()
def reference_log_probabilities(
    model: Decoder, pairs: PreferencePairs, batch_size: int = 64
) -> Float[Tensor, "pairs 2"]:
    """Compute the reference model's log-probabilities of all pairs once.

    The reference never changes, so only one model is in memory during training.
    """
    was_training = model.training
    model.eval()
    device = model.embedding.weight.device
    batches = torch.arange(len(pairs.token_ids)).split(batch_size)
    parts = [PreferencePairs(*trim_padding(*(tensor[rows].to(device) for tensor in pairs))) for rows in batches]
    result = torch.cat([log_probabilities(model, part).cpu() for part in parts])
    model.train(was_training)
    return result


def preference_lead(model: Decoder, pairs: PreferencePairs) -> dict[str, float]:
    """Measure how much more likely the preferred answers are.

    lead     mean of log p(preferred) − log p(rejected), in nats
    prefers  fraction of pairs where that difference is positive
    """
    both = reference_log_probabilities(model, pairs)
    lead = both[:, 0] - both[:, 1]
    return {"lead": lead.mean().item(), "prefers": (lead > 0).float().mean().item()}


class PreferenceBatches:
    """Shuffle pairs into batches (pairs, reference log-probabilities); `batches(number)` is a pure function."""

    def __init__(self, pairs: PreferencePairs, reference: Float[Tensor, "pairs 2"], *, batch_size: int, seed: int):
        self.pairs, self.reference = pairs, reference
        self.rows = Batches(torch.arange(len(reference)), batch_size=batch_size, seed=seed)

    def __call__(self, number: int) -> tuple[PreferencePairs, Tensor]:
        rows = self.rows(number)
        return PreferencePairs(*trim_padding(*(tensor[rows] for tensor in self.pairs))), self.reference[rows]


def preference_loss(
    model: Decoder, batch: tuple[PreferencePairs, Tensor], beta: float, anchor: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the DPO loss of a batch plus `anchor` times the cross-entropy of the preferred answers.

    Both are means over pairs, the cross-entropy per token of its answer, so that a batch is the mean of its parts.

    DPO alone requires only that the preferred answer loses less probability than the rejected one. Both can fall, and
    then the model generates a third text. The second term prevents that (arXiv:2404.19733, eq. 1).
    """
    pairs, reference = batch
    learned = log_probabilities(model, pairs)
    loss, metrics = dpo_loss(learned[:, 0], learned[:, 1], reference[:, 0], reference[:, 1], beta)
    cross_entropy = -learned[:, 0] / pairs.loss_mask[:, 0, 1:].sum(dim=1)
    return loss + anchor * cross_entropy.mean(), metrics | {"preference_loss": loss.detach()}


def train_on_preferences(
    model: Decoder, pairs: PreferencePairs, recipe: PreferenceRecipe, *, seed: int, run: RunOptions
) -> TrainingResult:
    """Optimize `model` on `pairs`; the reference is the model before the first step.

    Raise as `shared.training.train` does.
    """
    reference = reference_log_probabilities(model.to(run.device), pairs)
    return train(
        model,
        PreferenceBatches(pairs, reference, batch_size=recipe.batch_size, seed=seed),
        partial(preference_loss, beta=recipe.beta, anchor=recipe.anchor),
        recipe.training_config(seed),
        run=run,
    )
