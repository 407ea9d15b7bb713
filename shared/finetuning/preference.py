"""Learning from preferences without a reward model: direct preference optimization (arXiv:2305.18290)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def response_log_probability(
    logits: Float[Tensor, "batch tokens vocab"],
    token_ids: Int[Tensor, "batch tokens"],
    loss_mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "batch"]:
    """Return log p(response | prompt): the sum over the response's tokens, which the mask selects."""
    log_probabilities = F.log_softmax(logits[:, :-1].float(), dim=-1)
    of_tokens = log_probabilities.gather(-1, token_ids[:, 1:, None]).squeeze(-1)
    return torch.where(loss_mask[:, 1:], of_tokens, 0.0).sum(dim=1)


def dpo_pair_losses(
    preferred: Float[Tensor, "pairs"],
    rejected: Float[Tensor, "pairs"],
    reference_preferred: Float[Tensor, "pairs"],
    reference_rejected: Float[Tensor, "pairs"],
    beta: float,
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Return each pair's loss −log σ(margin), and the implicit rewards of the preferred and the rejected answer.

    The reward of an answer is β · (log p − log p_reference); the margin is the preferred answer's reward minus the
    rejected answer's (eq. 7). The reference's log-probabilities are constants.
    """
    # exercise 5.13: the loss of DPO
    preferred_reward = beta * (preferred - reference_preferred.detach())
    rejected_reward = beta * (rejected - reference_rejected.detach())
    return -F.logsigmoid(preferred_reward - rejected_reward), preferred_reward, rejected_reward
    # end exercise


def dpo_loss(
    preferred: Float[Tensor, "pairs"],
    rejected: Float[Tensor, "pairs"],
    reference_preferred: Float[Tensor, "pairs"],
    reference_rejected: Float[Tensor, "pairs"],
    beta: float = 0.1,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return −log σ(β · ((preferred − reference's) − (rejected − reference's))), averaged over pairs (eq. 7).

    All four are log-probabilities of whole responses to the same prompts, the first two from the trained model; those
    of the reference are constants. A larger beta holds the model closer to the reference.

    The second result contains metrics: the implicit rewards β · (log p − log p_reference) of both responses, their
    margin, and the fraction of pairs in which the preferred response has the higher reward.

    Raises ValueError when beta is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; expected a positive number such as 0.1")
    losses, preferred_reward, rejected_reward = dpo_pair_losses(
        preferred, rejected, reference_preferred, reference_rejected, beta
    )
    margin = preferred_reward - rejected_reward
    metrics = {
        "reward_preferred": preferred_reward.mean(),
        "reward_rejected": rejected_reward.mean(),
        "reward_margin": margin.mean(),
        "preferred_wins": (margin > 0).float().mean(),
    }
    return losses.mean(), {name: value.detach() for name, value in metrics.items()}
