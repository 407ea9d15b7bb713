"""Supervised fine-tuning and DPO: losses equal sums by hand, training lowers them, stopped runs resume exactly."""

import math
from dataclasses import replace

import pytest
import torch

from data.toybox.dialogues import dialogue_at
from data.toybox.questions import vocabulary
from shared.finetuning.conversations import (
    ConversationBatches,
    SupervisedRecipe,
    question_and_answer,
    supervised_loss,
    train_on_conversations,
)
from shared.finetuning.preference_training import (
    PreferenceBatches,
    PreferencePairs,
    PreferenceRecipe,
    log_probabilities,
    preference_lead,
    preference_loss,
    preference_pairs,
    reference_log_probabilities,
    train_on_preferences,
)
from shared.finetuning.supervised import collate
from shared.testing import assert_loss_adds_up
from shared.tokenizers import ChatTemplate, Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS
from shared.training import RunOptions, TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(Tokenizer.train([" ".join(vocabulary())] * 2, 600, special_tokens=SPECIAL_TOKENS))


@pytest.fixture
def model(template) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(template.tokenizer.vocab_size, 24, 1, 2, 2, 32, rotary_base=100.0, tied=True)).eval()
    torch.nn.init.normal_(model.embedding.weight, std=0.1)
    return model


@pytest.fixture
def run_options(tmp_path) -> RunOptions:
    return RunOptions(folder=tmp_path / "run")


def dialogues(count, split="train"):
    return [dialogue_at(split, 0, number) for number in range(count)]


def pairs_of(template, dialogues):
    return preference_pairs(template, [(each.question, each.patient, each.blunt) for each in dialogues])


def cross_entropy_by_hand(model, conversation) -> list[float]:
    """Compute it at each answer token from a forward pass over the tokens before it only."""
    token_ids = conversation.token_ids
    return [
        -model(torch.tensor([token_ids[:position]]))[0, -1].log_softmax(-1)[token_ids[position]].item()
        for position in range(1, len(token_ids))
        if conversation.loss_mask[position]
    ]


def test_only_the_answer_of_a_conversation_counts(template):
    conversation = question_and_answer(template, "red circle?", "circle.")
    learned = [token for token, answer in zip(conversation.token_ids, conversation.loss_mask, strict=True) if answer]
    assert template.tokenizer.decode(learned) == "circle.<|end|>"


def test_the_supervised_loss_by_hand(model, template):
    both = [
        question_and_answer(template, "red circle?", "circle."),
        question_and_answer(template, "a blue star and a red moon?", "two."),
    ]
    batches = ConversationBatches(both, batch_size=2, seed=0)
    by_hand = [each for one in both for each in cross_entropy_by_hand(model, one)]
    assert supervised_loss(model, batches(0)).mean().item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


RAGGED = [("red?", "red."), ("a star?", "there is a small red star and a large blue circle."), ("blue?", "no, red.")]


def test_supervised_losses_of_unequal_answers_add_up(model, template):
    tensors = collate([question_and_answer(template, *each) for each in RAGGED])
    assert_loss_adds_up(lambda rows: supervised_loss(model, tuple(tensor[rows] for tensor in tensors)), 3)


@pytest.mark.parametrize("anchor", [0.0, 1.0])
def test_preference_losses_of_unequal_answers_add_up(model, template, anchor):
    pairs = preference_pairs(template, [(question, answer, "red.") for question, answer in RAGGED])
    reference = reference_log_probabilities(model, pairs) + torch.randn(3, 2)

    def loss(rows):
        batch = PreferencePairs(*(tensor[rows] for tensor in pairs)), reference[rows]
        return preference_loss(model, batch, beta=0.5, anchor=anchor)

    assert_loss_adds_up(loss, 3)


def test_accumulated_conversations_are_one_large_batch(model, template):
    """Answers of 2 and of 11 tokens: the step on two batches of one equals the step on a batch of both."""
    conversations = [question_and_answer(template, *each) for each in RAGGED[:2]]
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def step(batch_size):
        model.load_state_dict(start)
        batches = ConversationBatches(conversations, batch_size=batch_size, seed=0)
        settings = TrainingConfig(1, 0.1, "sgd", 0.0, (0.0, 0.0), "constant", accumulate=2 // batch_size)
        return train(model, batches, supervised_loss, settings).model.state_dict()

    large = {name: tensor.clone() for name, tensor in step(2).items()}
    torch.testing.assert_close(step(1), large, rtol=1e-4, atol=1e-6)


def test_batches_are_as_short_as_possible(template):
    conversations = [question_and_answer(template, "red? " * length, "red.") for length in (1, 2, 3, 20)]
    batches = ConversationBatches(conversations, batch_size=1, seed=0)
    lengths = sorted(batches(number)[0].shape[1] for number in range(4))
    assert lengths == sorted(len(each.token_ids) for each in conversations)


def test_a_stopped_run_resumes_to_the_same_weights(model, template, run_options, tmp_path, monkeypatch):
    conversations = [
        question_and_answer(template, each.question, each.answer_to_imitate(number))
        for number, each in enumerate(dialogues(8))
    ]
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = SupervisedRecipe(steps=8, batch_size=4)

    def run(options):
        model.load_state_dict(start)
        train_on_conversations(model, conversations, recipe, seed=0, run=options)

    run(run_options)
    uninterrupted = [parameter.clone() for parameter in model.parameters()]
    call = ConversationBatches.__call__

    def stop_at_five(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return call(self, number)

    monkeypatch.setattr(ConversationBatches, "__call__", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        run(replace(run_options, folder=tmp_path / "cut"))
    monkeypatch.setattr(ConversationBatches, "__call__", call)
    run(replace(run_options, folder=tmp_path / "cut", resume=True))
    assert all(torch.equal(one, other) for one, other in zip(uninterrupted, model.parameters(), strict=True))


def test_reference_log_probabilities_by_hand(model, template):
    examples = dialogues(3)
    reference = reference_log_probabilities(model, pairs_of(template, examples), batch_size=2)
    assert reference.shape == (3, 2)
    for row, each in enumerate(examples):
        for column, answer in enumerate((each.patient, each.blunt)):
            by_hand = -sum(cross_entropy_by_hand(model, question_and_answer(template, each.question, answer)))
            assert reference[row, column].item() == pytest.approx(by_hand, rel=1e-4)


def test_preferences_generalize_to_other_questions(model, template, run_options):
    held_out = pairs_of(template, dialogues(16, "test"))
    before = preference_lead(model, held_out)
    recipe = PreferenceRecipe(steps=12, batch_size=16, learning_rate=3e-3, beta=0.1, anchor=0.0)
    result = train_on_preferences(model, pairs_of(template, dialogues(16)), recipe, seed=0, run=run_options)
    after = preference_lead(model, held_out)
    assert after["lead"] > before["lead"] + 5
    # The margin is measured against the model before training: the reference has not moved with it.
    assert result.history[-1]["reward_margin"] > 0.3
    assert result.history[-1]["loss"] < result.history[0]["loss"] <= math.log(2) + 1e-4
    assert result.history[-1]["loss"] == result.history[-1]["preference_loss"]
    assert result.history[-1]["preferred_wins"] > 0.9


def test_the_reference_is_the_model_before_training(model, template):
    pairs = pairs_of(template, dialogues(8))
    batches = PreferenceBatches(pairs, reference_log_probabilities(model, pairs), batch_size=4, seed=0)
    for number in range(2):
        batch, reference = batches(number)
        torch.testing.assert_close(log_probabilities(model, batch), reference, rtol=1e-4, atol=1e-3)
        assert not reference.requires_grad
