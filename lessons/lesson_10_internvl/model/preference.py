"""MPO: mixed preference optimization, a weighted sum of three losses (arXiv:2411.10442).

preference  DPO: the preferred response gets a higher reward than the rejected one (lesson 5)
quality     BCO: each response by itself is good, with a reward above the shift ρ̄, or bad, with one below it
generation  the cross-entropy of the preferred response

The reward of a response is ρ = β · (log p − log p of the reference), and ρ̄ is the mean of the rewards so far.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from shared.finetuning.preference import dpo_pair_losses


@dataclass(frozen=True)
class MPOSettings:
    """The temperature β of the rewards, and the weights of the three losses as the paper's authors train.

    Raises ValueError when beta is not positive, or a weight is negative.
    """

    beta: float = 0.1
    preference: float = 0.8
    quality: float = 0.2
    generation: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or min(self.preference, self.quality, self.generation) < 0:
            raise ValueError(
                f"beta is {self.beta} and the weights are {self.preference}, {self.quality} and {self.generation}; "
                "expected beta above 0 and weights of at least 0"
            )


@dataclass(frozen=True, eq=False)
class PreferencePairs:
    """Log-probabilities of pairs of responses to the same prompts, summed over the tokens of a response.

    preferred, rejected                      by the trained model
    reference_preferred, reference_rejected  by the frozen reference
    preferred_lengths                        numbers of tokens of the preferred responses
    """

    preferred: Float[Tensor, "pairs"]
    rejected: Float[Tensor, "pairs"]
    reference_preferred: Float[Tensor, "pairs"]
    reference_rejected: Float[Tensor, "pairs"]
    preferred_lengths: Int[Tensor, "pairs"]


def quality_losses(
    preferred_rewards: Float[Tensor, "pairs"], rejected_rewards: Float[Tensor, "pairs"], shift: float
) -> Float[Tensor, "pairs"]:
    """Return for each pair the sum of two losses, one per response: −log σ of the logit of its correct class.

    The preferred response should be classified as good, with the logit reward − ρ̄; the rejected one as bad, with the
    opposite logit ρ̄ − reward. σ is the logistic function. Large rewards of either sign give a finite loss.

    shift  ρ̄, a constant: it gets no gradient
    """
    # exercise 10.7: the quality loss
    return -F.logsigmoid(preferred_rewards - shift) - F.logsigmoid(shift - rejected_rewards)
    # end exercise


class RewardShift:
    """Hold the mean ρ̄ of all rewards so far, of preferred and rejected responses; 0 before the first."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    @property
    def value(self) -> float:
        """The mean of the rewards so far."""
        return self.total / self.count if self.count else 0.0

    def update(self, *rewards: Float[Tensor, "pairs"]) -> None:
        """Add the rewards of a batch."""
        self.total += sum(float(each.detach().double().sum()) for each in rewards)
        self.count += sum(len(each) for each in rewards)


def mpo_loss(
    pairs: PreferencePairs, shift: RewardShift, settings: MPOSettings = MPOSettings()
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return the mean loss of the pairs, and its three parts and the fraction of pairs whose preferred response wins.

    The rewards of the batch update the shift before it is used, as for the first batch there is no other.
    """
    losses, preferred_rewards, rejected_rewards = dpo_pair_losses(
        pairs.preferred, pairs.rejected, pairs.reference_preferred, pairs.reference_rejected, settings.beta
    )
    shift.update(preferred_rewards, rejected_rewards)
    parts = {
        "preference": losses.mean(),
        "quality": quality_losses(preferred_rewards, rejected_rewards, shift.value).mean(),
        "generation": (-pairs.preferred / pairs.preferred_lengths).mean(),
    }
    loss = sum((getattr(settings, name) * part for name, part in parts.items()), torch.zeros(()))
    wins = (preferred_rewards > rejected_rewards).float().mean()
    return loss, {name: part.detach() for name, part in (parts | {"preferred_wins": wins}).items()}
