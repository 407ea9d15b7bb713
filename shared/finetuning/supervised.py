"""Supervised fine-tuning: conversations side by side in a batch, and a loss on the answers only."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from shared.distributed import all_reduce_mean
from shared.tokenizers.chat_template import EncodedConversation


def collate(
    conversations: Sequence[EncodedConversation], *, length: int | None = None, padding: int = 0
) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """Tokens, whether each is the assistant's own, and segments (0, and −1 for padding), as long as the longest needs.

    length   cut conversations after so many tokens
    padding  the token to fill up with; which one makes no difference, for nothing looks at it

    Raises ValueError when a conversation (or what is left of it) has no answer to learn from.
    """
    rows = [(each.token_ids[:length], each.loss_mask[:length]) for each in conversations]
    for index, (_, answers) in enumerate(rows):
        # The first token is predicted from nothing, so it can't be what there is to learn.
        if not any(answers[1:]):
            cut = "" if length is None else f" in its first {length} tokens"
            raise ValueError(f"conversation {index} has no answer{cut}; leave it out or allow it to be longer")
    longest = max(len(numbers) for numbers, _ in rows)
    tokens = torch.full((len(rows), longest), padding)
    answers = torch.zeros(len(rows), longest, dtype=torch.bool)
    segments = torch.full((len(rows), longest), -1)
    for row, (numbers, mine) in enumerate(rows):
        tokens[row, : len(numbers)] = torch.tensor(numbers)
        answers[row, : len(numbers)] = torch.tensor(mine)
        segments[row, : len(numbers)] = 0
    return tokens, answers, segments


def sft_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    tokens: Int[Tensor, "batch tokens"],
    answers: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the answers' tokens, each predicted from what stands before it; a mean over tokens, in nats.

    A long answer so counts more than a short one. With several processes the mean is over the tokens of all.
    Raises ValueError when no token is an answer's.
    """
    learned = answers[:, 1:]
    count = all_reduce_mean(learned.sum().to(torch.float32))
    if count == 0:
        raise ValueError("no token of the batch is an answer's; the mean over none of them is no number")
    total = F.cross_entropy(logits[:, :-1][learned].float(), tokens[:, 1:][learned], reduction="sum")
    return total / count
