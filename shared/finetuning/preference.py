"""Learning from preferences without a reward model: direct preference optimization (arXiv:2305.18290)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def response_log_probability(
    logits: Float[Tensor, "batch tokens vocab"],
    tokens: Int[Tensor, "batch tokens"],
    answers: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, "batch"]:
    """log p(answer | prompt): the sum over the answer's tokens, each given all before it."""
    log_probabilities = F.log_softmax(logits[:, :-1].float(), dim=-1)
    spoken = log_probabilities.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    return torch.where(answers[:, 1:], spoken, 0.0).sum(dim=1)


def dpo_loss(
    preferred: Float[Tensor, "pairs"],
    rejected: Float[Tensor, "pairs"],
    reference_preferred: Float[Tensor, "pairs"],
    reference_rejected: Float[Tensor, "pairs"],
    beta: float = 0.1,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """−log σ(β · ((preferred − reference's) − (rejected − reference's))), a mean over pairs (eq. 7).

    All four are log-probabilities of whole answers to the same prompts, the first two from the model that learns. What
    the reference says is a constant. A larger beta holds the model closer to it.

    Also returns, to be logged, the implicit rewards β · (log p − log p_reference) of both answers, their margin, and
    the share of pairs in which the preferred one has the higher reward. Raises ValueError when beta is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta is {beta}; expected a positive number such as 0.1")
    reward = beta * (preferred - reference_preferred.detach())
    reward_of_rejected = beta * (rejected - reference_rejected.detach())
    margin = reward - reward_of_rejected
    measured = {
        "reward_preferred": reward.mean(),
        "reward_rejected": reward_of_rejected.mean(),
        "reward_margin": margin.mean(),
        "preferred_wins": (margin > 0).float().mean(),
    }
    return -F.logsigmoid(margin).mean(), {name: value.detach() for name, value in measured.items()}
