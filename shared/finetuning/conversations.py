"""Supervised fine-tuning of a language model on conversations, and replies from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from shared.finetuning.supervised import collate, sft_loss
from shared.tokenizers import ChatTemplate, EncodedConversation, Turn
from shared.training import Batches, LossSum, RunOptions, TrainingConfig, TrainingResult, muon_config, train
from shared.transformer import Decoder, Sampling, generate

MAX_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class SupervisedRecipe:
    """Set the length and the step size of supervised fine-tuning.

    batch_size     conversations per step
    learning_rate  peak of Muon's schedule
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 4e-3

    def training_config(self, seed: int) -> TrainingConfig:
        """Return the training loop's settings: Muon, a tenth of the steps as warm-up."""
        return muon_config(self.steps, self.learning_rate, seed=seed, log_lines=20)


def question_and_answer(template: ChatTemplate, question: str, answer: str) -> EncodedConversation:
    """Encode one question with its answer; only the answer's tokens count in the loss."""
    return template.encode([Turn("user", question), Turn("assistant", answer)])


class ConversationBatches:
    """Shuffle conversations into batches (token_ids, loss_mask, segments), each as long as its longest row.

    `batches(number)` is a pure function of the batch's number.
    """

    def __init__(self, conversations: Sequence[EncodedConversation], *, batch_size: int, seed: int):
        self.tensors = collate(conversations)
        rows = torch.arange(len(conversations))
        self.rows = Batches(rows, batch_size=batch_size, seed=seed)

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        token_ids, loss_mask, segments = (tensor[self.rows(number)] for tensor in self.tensors)
        return trim_padding(token_ids, loss_mask, segments)


def trim_padding(
    token_ids: Int[Tensor, "*batch length"],
    loss_mask: Bool[Tensor, "*batch length"],
    segments: Int[Tensor, "*batch length"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Remove the last columns where every row is padding (segment −1)."""
    longest = int((segments >= 0).sum(dim=-1).max())
    return token_ids[..., :longest], loss_mask[..., :longest], segments[..., :longest]


def supervised_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> LossSum:
    """Return the cross-entropy of the answers' tokens, in nats, as their sum and their number.

    Padding is at the end of each row, where a causal model's earlier tokens do not attend: no mask is needed.
    """
    token_ids, loss_mask, _ = batch
    return sft_loss(model(token_ids), token_ids, loss_mask)


def train_on_conversations(
    model: Decoder,
    conversations: Sequence[EncodedConversation],
    recipe: SupervisedRecipe,
    *,
    seed: int,
    run: RunOptions,
) -> TrainingResult:
    """Fine-tune all weights of `model` on the answers of `conversations`. Raise as `shared.training.train` does."""
    return train(
        model,
        ConversationBatches(conversations, batch_size=recipe.batch_size, seed=seed),
        supervised_loss,
        recipe.training_config(seed),
        run=run,
    )


def answer_questions(
    model: Decoder, template: ChatTemplate, questions: Sequence[str], *, batch_size: int = 64
) -> list[str]:
    """Return the most likely answer to each question, token by token, each question a conversation of its own."""
    end = template.tokenizer.special_tokens[template.end]
    answers: list[str] = []
    for start in range(0, len(questions), batch_size):
        prompts = [
            torch.tensor(template.encode([Turn("user", question)], add_generation_prompt=True).token_ids)
            for question in questions[start : start + batch_size]
        ]
        generated = generate(model, prompts, Sampling(MAX_ANSWER_TOKENS, stop_token_ids=(end,)))
        answers += [
            template.tokenizer.decode(answer.tolist(), skip_special_tokens=True).strip() for answer in generated
        ]
    return answers
