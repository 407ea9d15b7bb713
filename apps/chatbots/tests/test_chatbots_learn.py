"""What the chatbots' losses ask for, and that they learn it: by questions, from preferences, from a larger model."""

import math
import sys

import pytest
import torch

from apps.chatbots import arms, bots, chat, distil, train
from apps.chatbots.bots import Bot, load_bot, make_expert
from apps.chatbots.conversations import (
    ConversationBatches,
    answers_to,
    reading,
    supervised_loss,
    talk,
)
from apps.chatbots.dialogues import dialogue_at
from apps.chatbots.preferences import PreferenceBatches, log_probabilities, pairs_of, remembered
from apps.chatbots.teacher import preference, teach_to_answer, teach_to_prefer
from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.errors import CourseError
from shared.tokenizers import ChatTemplate
from shared.transformer import DecoderConfig

TEXT = (
    "A cat is a soft animal. A dog keeps the house safe. Two birds share one old nest. The sea carries small boats.\n"
)


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(load_language_model()[1])


@pytest.fixture
def model(template) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(
        DecoderConfig(template.tokenizer.vocab_size, 24, 1, 2, 2, 32, rotary_base=100.0, tied=True)
    ).eval()


def surprise_by_hand(model: LanguageModel, numbers: list[int], answers: list[bool]) -> list[float]:
    """At each token of the answers, asked of a model that is shown only what stands before."""
    return [
        -model(torch.tensor([numbers[:place]]))[0, -1].log_softmax(-1)[numbers[place]].item()
        for place in range(1, len(numbers))
        if answers[place]
    ]


# ── Supervised ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_a_conversation_the_answer_alone_is_learned(template):
    conversation = talk(template, "red circle?", "circle.")
    mine = [number for number, answer in zip(conversation.token_ids, conversation.loss_mask, strict=True) if answer]
    assert template.tokenizer.decode(mine) == "circle.<|end|>"
    text = reading(template.tokenizer, "a red circle")
    assert text.loss_mask == [False, *[True] * (len(text.token_ids) - 1)]
    assert template.tokenizer.decode(text.token_ids[1:]) == "a red circle"


def test_the_supervised_loss_by_hand(model, template):
    both = [talk(template, "red circle?", "circle."), talk(template, "a blue star and a red moon?", "two things.")]
    batches = ConversationBatches(both, batch_size=2, seed=0)
    by_hand = [each for one in both for each in surprise_by_hand(model, one.token_ids, one.loss_mask)]
    assert supervised_loss(model, batches(0)).item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4)


def test_batches_are_no_longer_than_they_need_be(template):
    conversations = [talk(template, "red? " * length, "red.") for length in (1, 2, 3, 20)]
    batches = ConversationBatches(conversations, batch_size=1, seed=0)
    lengths = sorted(batches(number)[0].shape[1] for number in range(4))
    assert lengths == sorted(len(each.token_ids) for each in conversations)


def test_an_expert_of_four_sentences(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "page.txt").write_text(TEXT)
    bot = make_expert(tmp_path / "texts", tmp_path / "run", steps=60)
    right = {
        "what is a cat?": "A cat is a soft animal.",
        "tell me what the sea carries.": "The sea carries small boats.",
    }
    assert answers_to(bot.model, bot.template, list(right)) == list(right.values())
    again = load_bot(tmp_path / "run")
    assert again.kind == "expert" and answers_to(again.model, again.template, list(right)) == list(right.values())
    assert not (tmp_path / "run" / "training").exists()
    said = []
    typed = iter(["What is a CAT?", ""])
    chat.talk_to(again, lambda: next(typed), said.append)
    assert said == ["A cat is a soft animal."]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(model, template, tmp_path, monkeypatch):
    spoken = [dialogue_at("train", 0, number) for number in range(8)]
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = {"steps": 8, "batch_size": 4}
    teach_to_answer(model, template, spoken, folder=tmp_path / "whole", **settings)
    whole = [parameter.clone() for parameter in model.parameters()]
    call = ConversationBatches.__call__

    def stopped(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return call(self, number)

    model.load_state_dict(start)
    monkeypatch.setattr(ConversationBatches, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        teach_to_answer(model, template, spoken, folder=tmp_path / "cut", **settings)
    monkeypatch.setattr(ConversationBatches, "__call__", call)
    model.load_state_dict(start)
    teach_to_answer(model, template, spoken, folder=tmp_path / "cut", resume=True, **settings)
    assert all(torch.equal(one, other) for one, other in zip(whole, model.parameters(), strict=True))


# ── Preferences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_remembered_of_a_pair_by_hand(model, template):
    spoken = [dialogue_at("train", 0, number) for number in range(3)]
    said = remembered(model, pairs_of(template, spoken), batch_size=2)
    assert said.shape == (3, 2)
    for row, each in enumerate(spoken):
        for column, answer in enumerate((each.patient, each.blunt)):
            one = talk(template, each.question, answer)
            by_hand = -sum(surprise_by_hand(model, one.token_ids, one.loss_mask))
            assert said[row, column].item() == pytest.approx(by_hand, rel=1e-4)


def test_preferences_are_learned_and_hold_for_other_questions(model, template):
    learned, others = ([dialogue_at(split, 0, number) for number in range(16)] for split in ("train", "test"))
    held_out = pairs_of(template, others)
    before = preference(model, held_out)
    result = teach_to_prefer(
        model, template, learned, steps=12, folder=None, batch_size=16, learning_rate=3e-3, beta=0.1, anchor=0.0
    )
    after = preference(model, held_out)
    assert after["lead"] > before["lead"] + 5
    # Against what the model said before it began: the reference has not moved with it.
    assert result.history[-1]["reward_margin"] > 0.3
    assert result.history[-1]["loss"] < result.history[0]["loss"] <= math.log(2) + 1e-4
    assert result.history[-1]["loss"] == result.history[-1]["preference_loss"]
    assert result.history[-1]["preferred_wins"] > 0.9


def test_the_reference_is_the_model_as_it_came(model, template):
    pairs = pairs_of(template, [dialogue_at("train", 0, number) for number in range(8)])
    batches = PreferenceBatches(pairs, remembered(model, pairs), batch_size=4, seed=0)
    for number in range(2):
        batch, reference = batches(number)
        torch.testing.assert_close(log_probabilities(model, batch), reference, rtol=1e-4, atol=1e-3)
        assert not reference.requires_grad


# ── Distillation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_students_loss(model):
    tokens = torch.randint(0, model.config.vocab_size, (2, 9))
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, -1, -1, -1]])
    alone = distil.student_loss(model, (tokens, segments), None, 0.7, 2.0)
    torch.testing.assert_close(alone, next_token_loss(model(tokens, segments=segments), tokens, segments))
    itself = distil.student_loss(model, (tokens, segments), model, 1.0, 2.0)
    assert itself.item() == pytest.approx(0.0, abs=1e-5)
    torch.manual_seed(1)
    other = LanguageModel(model.config)
    mixed = distil.student_loss(model, (tokens, segments), other, 0.25, 2.0)
    copied = distil.student_loss(model, (tokens, segments), other, 1.0, 2.0)
    torch.testing.assert_close(mixed, 0.75 * alone + 0.25 * copied)
    copied.backward()
    assert all(parameter.grad is None for parameter in other.parameters())
    assert model.embedding.weight.grad.abs().max() > 0


# ── The arms and the command lines ────────────────────────────────────────────────────────────────────────────────────


def test_the_arms_measure(tmp_path):
    settings = {"seed": 0, "data": "toybox", "device": "cpu", "resume": False}
    teacher = arms.train_teacher(
        folder=tmp_path / "teacher", steps=1, preference_steps=1, dialogues=16, pairs=8, held_out=3, **settings
    )
    assert {"patient_before", "patient_after", "right_before", "right_after", "margin_gained"} <= teacher.keys()
    for taught in (False, True):
        student = distil.distil(folder=tmp_path / f"student-{taught}", steps=1, documents=60, taught=taught, **settings)
        assert student["parameters"] < student["teacher_parameters"] / 5
        assert student["bits_per_byte"] > student["teacher_bits_per_byte"]


def test_the_experts_arm_measures(tmp_path, monkeypatch):
    (tmp_path / "page.txt").write_text(
        TEXT * 1 + "A page has words. A hat is warm. A pen writes words. A day ends at night.\n"
    )
    monkeypatch.setattr(arms, "TEXTS", tmp_path)
    monkeypatch.setattr(arms, "read_exam", lambda: [("which animal is soft?", "A cat is a soft animal.")])
    monkeypatch.setattr("apps.chatbots.expert.NEVER_ASKED", 4)
    measured = arms.train_expert(
        seed=0, data="toybox", device="cpu", folder=tmp_path / "run", resume=False, steps=2, batch_size=8
    )
    for name in ("kept_wordings", "new_wordings", "read_only", "exam"):
        assert 0 <= measured[name] <= 1 and 0 <= measured[f"{name}_by_matching_words"] <= 1
    assert measured["exam_by_matching_words"] == 1.0


def called(main, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    return main()


def test_the_command_lines(tmp_path, monkeypatch, capsys):
    (tmp_path / "page.txt").write_text(TEXT)
    run = tmp_path / "run"
    assert called(train.main, monkeypatch, "expert", tmp_path, "--run", run, "--steps", 2) == 0
    assert "answered to the letter" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert called(chat.main, monkeypatch, "expert", "--run", run) == 0
    assert called(chat.main, monkeypatch, "teacher", "--run", run) == 2
    assert "holds the expert" in capsys.readouterr().err
    assert called(chat.main, monkeypatch, "expert", "--run", tmp_path / "nowhere") == 2
    assert called(train.main, monkeypatch, "expert", tmp_path / "nowhere", "--run", run) == 2
    with pytest.raises(SystemExit):
        called(train.main, monkeypatch, "teacher", tmp_path)


def test_the_teacher_keeps_the_scene_in_view(template, monkeypatch):
    bot = Bot("teacher", *(load_language_model()[0], template))
    asked = []

    def heard(_model, _template, questions):
        asked.extend(questions)
        return ["blue."]

    monkeypatch.setattr(chat, "answers_to", heard)
    typed = iter(
        ["what colour is the star?", "A red moon. What shape is the red thing?", "where is the moon?", "new", ""]
    )
    said = []
    chat.talk_to(bot, lambda: next(typed), said.append)
    first = said[0].splitlines()[0].removeprefix("in view: ")
    assert asked == [
        f"{first} what colour is the star?",
        "a red moon. what shape is the red thing?",
        "a red moon. where is the moon?",
    ]
    assert said[1:4] == ["blue."] * 3 and said[4].startswith("in view: ") and said[4] != said[0]


def test_a_made_teacher_is_kept(tmp_path):
    made = bots.make_teacher(tmp_path / "run", steps=1, preference_steps=1, dialogues=8, pairs=4)
    again = load_bot(tmp_path / "run")
    assert again.kind == "teacher"
    for one, other in zip(made.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(CourseError, match="holds no chatbot"):
        load_bot(tmp_path)
