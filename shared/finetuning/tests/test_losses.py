"""The losses of supervised fine-tuning, preferences and distillation."""

import math

import pytest
import torch
from torch.nn import functional as F

from shared.finetuning import (
    AdapterConfig,
    add_adapters,
    collate,
    disable_adapters,
    distillation_loss,
    dpo_loss,
    response_log_probability,
    sft_loss,
)
from shared.finetuning.tests.adapted_models import CONFIG, decoder
from shared.tokenizers.chat_template import EncodedConversation
from shared.training import TrainingConfig, train

CONVERSATIONS = [
    EncodedConversation([1, 5, 6, 7, 2], [False, False, True, True, False]),
    EncodedConversation([1, 9, 8], [False, False, True]),
]


def batch():
    return collate(CONVERSATIONS, padding=3)


def test_conversations_are_padded_to_one_length():
    token_ids, loss_mask, segments = batch()
    assert token_ids.tolist() == [[1, 5, 6, 7, 2], [1, 9, 8, 3, 3]]
    assert loss_mask.tolist() == [[False, False, True, True, False], [False, False, True, False, False]]
    assert segments.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, -1, -1]]
    assert [each.shape for each in collate(CONVERSATIONS, length=3)] == [(2, 3)] * 3


def test_a_conversation_without_an_answer_is_named():
    without_answer = EncodedConversation([1, 5, 6], [False] * 3)
    with pytest.raises(ValueError, match="conversation 1 has no answer;"):
        collate([CONVERSATIONS[0], without_answer])
    with pytest.raises(ValueError, match="conversation 0 has no answer in its first 2 tokens"):
        collate(CONVERSATIONS, length=2)
    with pytest.raises(ValueError, match="conversation 0 has no answer"):
        collate([EncodedConversation([7, 5], [True, False])])  # the first token is not predicted


def test_the_loss_is_the_cross_entropy_of_the_answers_given_earlier_tokens():
    token_ids, loss_mask, _ = batch()
    logits = torch.randn(2, 5, 11)
    predictions = [(0, 1, 6), (0, 2, 7), (1, 1, 8)]  # row, position of the prediction, token id
    expected = -sum(F.log_softmax(logits[row, position], -1)[token] for row, position, token in predictions) / 3
    torch.testing.assert_close(sft_loss(logits, token_ids, loss_mask).mean(), expected)
    sums = torch.stack(
        [F.log_softmax(logits[0, 1], -1)[6] + F.log_softmax(logits[0, 2], -1)[7], F.log_softmax(logits[1, 1], -1)[8]]
    )
    torch.testing.assert_close(response_log_probability(logits, token_ids, loss_mask), sums)


def test_prompts_and_padding_get_no_gradient():
    token_ids, loss_mask, _ = batch()
    for loss in (
        lambda logits: sft_loss(logits, token_ids, loss_mask).total,
        lambda logits: response_log_probability(logits, token_ids, loss_mask).sum(),
        lambda logits: distillation_loss(logits, torch.zeros(2, 5, 11), loss_mask),
    ):
        logits = torch.randn(2, 5, 11, requires_grad=True)
        loss(logits).backward()
        has_gradient = logits.grad.abs().sum(dim=-1) > 0
        assert has_gradient.tolist() == [[False, True, True, False, False], [False, True, False, False, False]]


def test_padding_does_not_change_the_log_probability():
    model = decoder()
    token_ids, loss_mask, segments = batch()
    together = response_log_probability(model(token_ids, segments=segments), token_ids, loss_mask)
    for row, conversation in enumerate(CONVERSATIONS):
        single_ids, single_mask, single_segments = collate([conversation])
        torch.testing.assert_close(
            response_log_probability(model(single_ids, segments=single_segments), single_ids, single_mask)[0],
            together[row],
        )


def test_an_empty_loss_mask_raises():
    empty = torch.zeros(1, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="the loss has no terms"):
        sft_loss(torch.randn(1, 4, 5), torch.zeros(1, 4, dtype=torch.long), empty).mean()
    with pytest.raises(ValueError, match="selects no token of the batch"):
        distillation_loss(torch.randn(1, 4, 5), torch.randn(1, 4, 5), empty)


def test_dpo_equals_its_formula():
    values = [
        torch.tensor([-4.0, -9.0]),
        torch.tensor([-6.0, -7.0]),
        torch.tensor([-5.0, -8.0]),
        torch.tensor([-5.5, -8.0]),
    ]
    # margins, before beta: (−4 + 5) − (−6 + 5.5) = 1.5 and (−9 + 8) − (−7 + 8) = −2
    expected = sum(math.log(1 + math.exp(-0.5 * margin)) for margin in (1.5, -2.0)) / 2
    loss, metrics = dpo_loss(*values, beta=0.5)
    assert loss.item() == pytest.approx(expected)
    assert metrics["reward_margin"].item() == pytest.approx(0.5 * -0.25)
    assert metrics["reward_preferred"].item() == pytest.approx(0.5 * 0.0)
    assert metrics["reward_rejected"].item() == pytest.approx(0.5 * 0.25)
    assert metrics["preferred_wins"].item() == 0.5
    with pytest.raises(ValueError, match="beta is 0"):
        dpo_loss(*values, beta=0.0)


def test_dpos_gradient_is_largest_for_the_pair_that_is_most_wrong():
    values = [
        torch.tensor([-4.0, -9.0]),
        torch.tensor([-6.0, -7.0]),
        torch.tensor([-5.0, -8.0]),
        torch.tensor([-5.5, -8.0]),
    ]
    for value in values:
        value.requires_grad_()
    dpo_loss(*values, beta=0.5)[0].backward()
    preferred, rejected, *reference = (value.grad for value in values)
    assert (preferred < 0).all() and torch.equal(rejected, -preferred)
    assert preferred[1].abs() > preferred[0].abs()
    assert reference == [None, None], "the reference is a constant"


def test_dpo_learns_a_preference_with_disabled_adapters_as_reference():
    model = decoder().eval()
    add_adapters(model, AdapterConfig(("blocks.*",), rank=4))
    prompt = torch.randint(CONFIG.vocab_size, (12, 4))
    # Held-out prompts show that the preference was learned, not the prompts.
    good, bad = torch.full((12, 1), 7), torch.full((12, 1), 8)
    loss_mask = torch.tensor([[False] * 4 + [True]]).expand(12, 5)

    def log_probability(word, rows):
        token_ids = torch.cat((prompt, word), dim=1)[rows]
        return response_log_probability(model(token_ids), token_ids, loss_mask[rows])

    def loss(_, rows):
        with torch.no_grad(), disable_adapters(model):
            reference = log_probability(good, rows), log_probability(bad, rows)
        return dpo_loss(log_probability(good, rows), log_probability(bad, rows), *reference, beta=0.5)

    held_out = slice(8, 12)
    start, metrics = loss(model, held_out)
    assert start.item() == pytest.approx(math.log(2)) and metrics["reward_margin"].item() == 0.0
    train(model, lambda number: torch.arange(8), loss, TrainingConfig(15, 3e-2))
    end, metrics = loss(model, held_out)
    assert end < 0.4 and metrics["preferred_wins"] == 1.0


def test_distillation_is_the_kl_divergence_from_the_teacher():
    _, loss_mask, _ = batch()
    student, teacher = torch.randn(2, 5, 11), torch.randn(2, 5, 11)
    predictions = [(0, 1), (0, 2), (1, 1)]
    total = 0.0
    for row, position in predictions:
        p, q = (F.softmax(logits[row, position].double() / 2.5, dim=-1) for logits in (teacher, student))
        total += sum(float(a * math.log(a / b)) for a, b in zip(p, q, strict=True))
    loss = distillation_loss(student, teacher, loss_mask, temperature=2.5)
    assert loss.item() == pytest.approx(2.5**2 * total / 3, rel=1e-5)
    assert distillation_loss(teacher, teacher, loss_mask).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_gets_no_gradient_and_the_temperature_keeps_the_gradients_size():
    _, loss_mask, _ = batch()
    teacher, sizes = torch.randn(2, 5, 11, requires_grad=True), []
    for temperature in (20.0, 40.0):
        student = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(9)).requires_grad_()
        distillation_loss(student, teacher, loss_mask, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert teacher.grad is None
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_teacher_with_another_vocabulary_raises():
    loss_mask = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="same vocabulary"):
        distillation_loss(torch.randn(1, 3, 5), torch.randn(1, 3, 6), loss_mask)
    with pytest.raises(ValueError, match="temperature is 0"):
        distillation_loss(torch.randn(1, 3, 5), torch.randn(1, 3, 5), loss_mask, temperature=0.0)
