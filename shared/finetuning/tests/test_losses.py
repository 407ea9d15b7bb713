"""Losses on answers, on preferences, and on what a teacher says."""

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

TALKS = [
    EncodedConversation([1, 5, 6, 7, 2], [False, False, True, True, False]),
    EncodedConversation([1, 9, 8], [False, False, True]),
]


def batch():
    return collate(TALKS, padding=3)


def test_conversations_lie_side_by_side():
    tokens, answers, segments = batch()
    assert tokens.tolist() == [[1, 5, 6, 7, 2], [1, 9, 8, 3, 3]]
    assert answers.tolist() == [[False, False, True, True, False], [False, False, True, False, False]]
    assert segments.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, -1, -1]]
    assert [each.shape for each in collate(TALKS, length=3)] == [(2, 3)] * 3


def test_a_conversation_without_an_answer_is_named():
    silent = EncodedConversation([1, 5, 6], [False] * 3)
    with pytest.raises(ValueError, match="conversation 1 has no answer;"):
        collate([TALKS[0], silent])
    with pytest.raises(ValueError, match="conversation 0 has no answer in its first 2 tokens"):
        collate(TALKS, length=2)
    with pytest.raises(ValueError, match="conversation 0 has no answer"):
        collate(
            [EncodedConversation([7, 5], [True, False])]
        )  # nothing stands before the first token to predict it from


def test_the_loss_is_that_of_the_answers_from_what_stands_before_them():
    tokens, answers, _ = batch()
    logits = torch.randn(2, 5, 11)
    said = [(0, 1, 6), (0, 2, 7), (1, 1, 8)]  # row, where it is predicted, token
    expected = -sum(F.log_softmax(logits[row, at], -1)[token] for row, at, token in said) / 3
    torch.testing.assert_close(sft_loss(logits, tokens, answers), expected)
    sums = torch.stack(
        [F.log_softmax(logits[0, 1], -1)[6] + F.log_softmax(logits[0, 2], -1)[7], F.log_softmax(logits[1, 1], -1)[8]]
    )
    torch.testing.assert_close(response_log_probability(logits, tokens, answers), sums)


def test_prompts_and_padding_get_no_gradient():
    tokens, answers, _ = batch()
    for loss in (
        lambda logits: sft_loss(logits, tokens, answers),
        lambda logits: response_log_probability(logits, tokens, answers).sum(),
        lambda logits: distillation_loss(logits, torch.zeros(2, 5, 11), answers),
    ):
        logits = torch.randn(2, 5, 11, requires_grad=True)
        loss(logits).backward()
        learned = logits.grad.abs().sum(dim=-1) > 0
        assert learned.tolist() == [[False, True, True, False, False], [False, True, False, False, False]]


def test_padding_changes_nothing():
    model = decoder()
    tokens, answers, segments = batch()
    together = response_log_probability(model(tokens, segments=segments), tokens, answers)
    for row, talk in enumerate(TALKS):
        one, mine, alone = collate([talk])
        torch.testing.assert_close(response_log_probability(model(one, segments=alone), one, mine)[0], together[row])


def test_a_batch_without_answers_is_no_mean_over_nothing():
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="no token of the batch"):
        sft_loss(torch.randn(1, 4, 5), torch.zeros(1, 4, dtype=torch.long), nothing)
    with pytest.raises(ValueError, match="no token of the batch"):
        distillation_loss(torch.randn(1, 4, 5), torch.randn(1, 4, 5), nothing)


def test_dpo_is_the_formula():
    values = [
        torch.tensor([-4.0, -9.0]),
        torch.tensor([-6.0, -7.0]),
        torch.tensor([-5.0, -8.0]),
        torch.tensor([-5.5, -8.0]),
    ]
    # margins, before beta: (−4 + 5) − (−6 + 5.5) = 1.5 and (−9 + 8) − (−7 + 8) = −2
    expected = sum(math.log(1 + math.exp(-0.5 * margin)) for margin in (1.5, -2.0)) / 2
    loss, measured = dpo_loss(*values, beta=0.5)
    assert loss.item() == pytest.approx(expected)
    assert measured["reward_margin"].item() == pytest.approx(0.5 * -0.25)
    assert measured["reward_preferred"].item() == pytest.approx(0.5 * 0.0)
    assert measured["reward_rejected"].item() == pytest.approx(0.5 * 0.25)
    assert measured["preferred_wins"].item() == 0.5
    with pytest.raises(ValueError, match="beta is 0"):
        dpo_loss(*values, beta=0.0)


def test_dpos_gradient_pushes_the_right_way_and_most_where_it_is_most_wrong():
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


def test_dpo_learns_a_preference_beside_its_own_reference():
    model = decoder().eval()
    add_adapters(model, AdapterConfig(("blocks.*",), rank=4))
    prompt = torch.randint(CONFIG.vocab_size, (12, 4))
    # Held-out prompts show that the preference was learned, and not the prompts.
    good, bad = torch.full((12, 1), 7), torch.full((12, 1), 8)
    answers = torch.tensor([[False] * 4 + [True]]).expand(12, 5)

    def say(word, rows):
        tokens = torch.cat((prompt, word), dim=1)[rows]
        return response_log_probability(model(tokens), tokens, answers[rows])

    def loss(_, rows):
        with torch.no_grad(), disable_adapters(model):
            reference = say(good, rows), say(bad, rows)
        return dpo_loss(say(good, rows), say(bad, rows), *reference, beta=0.5)

    held_out = slice(8, 12)
    start, measured = loss(model, held_out)
    assert start.item() == pytest.approx(math.log(2)) and measured["reward_margin"].item() == 0.0
    train(model, lambda number: torch.arange(8), loss, TrainingConfig(15, 3e-2))
    end, measured = loss(model, held_out)
    assert end < 0.4 and measured["preferred_wins"] == 1.0


def test_distillation_is_the_divergence_from_the_teacher():
    _, answers, _ = batch()
    student, teacher = torch.randn(2, 5, 11), torch.randn(2, 5, 11)
    places = [(0, 1), (0, 2), (1, 1)]
    total = 0.0
    for row, at in places:
        p, q = (F.softmax(each[row, at].double() / 2.5, dim=-1) for each in (teacher, student))
        total += sum(float(a * math.log(a / b)) for a, b in zip(p, q, strict=True))
    loss = distillation_loss(student, teacher, answers, temperature=2.5)
    assert loss.item() == pytest.approx(2.5**2 * total / 3, rel=1e-5)
    assert distillation_loss(teacher, teacher, answers).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_learns_nothing_and_the_gradient_keeps_its_size():
    _, answers, _ = batch()
    teacher, sizes = torch.randn(2, 5, 11, requires_grad=True), []
    for temperature in (20.0, 40.0):
        student = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(9)).requires_grad_()
        distillation_loss(student, teacher, answers, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert teacher.grad is None
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_teacher_of_another_vocabulary_is_refused():
    answers = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="same vocabulary"):
        distillation_loss(torch.randn(1, 3, 5), torch.randn(1, 3, 6), answers)
    with pytest.raises(ValueError, match="temperature is 0"):
        distillation_loss(torch.randn(1, 3, 5), torch.randn(1, 3, 5), answers, temperature=0.0)
