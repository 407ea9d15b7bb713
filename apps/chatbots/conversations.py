"""Conversations as batches to learn from, and answers to questions: what both chatbots share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.finetuning import collate, sft_loss
from shared.tokenizers import ChatTemplate, EncodedConversation, Tokenizer, Turn
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.training import Batches
from shared.transformer import Sampling, generate

LONGEST_ANSWER = 64


def talk(template: ChatTemplate, question: str, answer: str) -> EncodedConversation:
    """One question with its answer; the answer is what there is to learn."""
    return template.encode([Turn("user", question), Turn("assistant", answer)])


def reading(tokenizer: Tokenizer, text: str) -> EncodedConversation:
    """A text to read: every word of it is to be learned."""
    tokens = tokenizer.encode(text)
    return EncodedConversation([tokenizer.special_tokens[BEGIN_TOKEN], *tokens], [False, *[True] * len(tokens)])


class ConversationBatches:
    """Shuffled batches (tokens, answers, segments) as long as the longest in them; `batches(number)` is a pure function."""

    def __init__(self, conversations: Sequence[EncodedConversation], *, batch_size: int, seed: int):
        self.parts = collate(conversations)
        rows = torch.arange(len(conversations))
        self.rows = Batches(rows, batch_size=min(batch_size, len(conversations)), seed=seed)

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return trimmed(*(part[self.rows(number)] for part in self.parts))


def trimmed(tokens: Tensor, answers: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Without the columns in which all rows are padding."""
    longest = int((segments >= 0).sum(dim=-1).max())
    return tokens[..., :longest], answers[..., :longest], segments[..., :longest]


def supervised_loss(model: LanguageModel, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The surprise at the answers. Padding is at the ends, where no word of a causal model looks."""
    tokens, answers, _ = batch
    return sft_loss(model(tokens), tokens, answers)


def replies(
    model: LanguageModel,
    template: ChatTemplate,
    histories: Sequence[Sequence[Turn]],
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    batch_size: int = 64,
) -> list[str]:
    """What the assistant says next in each conversation; the most likely tokens."""
    end, said = template.tokenizer.special_tokens[template.end], []
    for first in range(0, len(histories), batch_size):
        prompts = [
            torch.tensor(template.encode(turns, add_generation_prompt=True).token_ids)
            for turns in histories[first : first + batch_size]
        ]
        written = generate(model, prompts, Sampling(max_new_tokens, stop_token_ids=(end,)))
        said += [template.tokenizer.decode(answer.tolist(), skip_special_tokens=True).strip() for answer in written]
    return said


def answers_to(model: LanguageModel, template: ChatTemplate, questions: Sequence[str]) -> list[str]:
    """The likeliest answer to each question, asked on its own."""
    return replies(model, template, [[Turn("user", question)] for question in questions])
