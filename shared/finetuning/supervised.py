"""Supervised fine-tuning: batches of conversations, and the cross-entropy of the answers' tokens."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from shared.tokenizers.chat_template import EncodedConversation
from shared.training import LossSum


def collate(
    conversations: Sequence[EncodedConversation], *, length: int | None = None, padding: int = 0
) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """Return token ids, loss mask (the assistant's tokens) and segments (0, and −1 for padding) of conversations.

    length   cut conversations after this many tokens
    padding  token id of the padding, to which no other token attends

    Raises ValueError when a conversation, possibly cut, has no answer token.
    """
    rows = [(conversation.token_ids[:length], conversation.loss_mask[:length]) for conversation in conversations]
    for index, (_, answer_tokens) in enumerate(rows):
        # The first token is not predicted, so it can't be the only answer token.
        if not any(answer_tokens[1:]):
            cut = "" if length is None else f" in its first {length} tokens"
            raise ValueError(f"conversation {index} has no answer{cut}; leave it out or allow a larger length")
    longest = max(len(row_ids) for row_ids, _ in rows)
    token_ids = torch.full((len(rows), longest), padding)
    loss_mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    segments = torch.full((len(rows), longest), -1)
    for row, (row_ids, answer_tokens) in enumerate(rows):
        token_ids[row, : len(row_ids)] = torch.tensor(row_ids)
        loss_mask[row, : len(row_ids)] = torch.tensor(answer_tokens)
        segments[row, : len(row_ids)] = 0
    return token_ids, loss_mask, segments


def sft_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    token_ids: Int[Tensor, "batch tokens"],
    loss_mask: Bool[Tensor, "batch tokens"],
) -> LossSum:
    """Return the cross-entropy of the tokens in the mask, each predicted from the tokens before it, in nats.

    It is their sum and their number. The mean is over tokens, so a long answer counts more than a short one; the
    training loop takes it over the tokens of all batches and processes of a step.
    """
    predicted = loss_mask[:, 1:]
    total = F.cross_entropy(logits[:, :-1][predicted].float(), token_ids[:, 1:][predicted], reduction="sum")
    return LossSum.of(total, predicted.sum())
