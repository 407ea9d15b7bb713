"""The chatbots learn, are written and loaded again, and their command line reports what it does."""

import json
from pathlib import Path
from statistics import fmean

import pytest
import torch

from apps.chatbots import __main__ as command_line
from apps.chatbots import chat as chat_module
from apps.chatbots import expert as expert_module
from apps.chatbots.chat import chat
from apps.chatbots.chatbot import Chatbot, load_chatbot, make_expert, make_teacher
from apps.chatbots.expert import ExpertRecipe, evaluate_expert, expert_data, plain_text
from apps.chatbots.facts import read_texts
from apps.chatbots.teacher import TeacherRecipe, evaluate_teacher
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from shared.course.claims import half_width
from shared.errors import CourseError
from shared.finetuning import PreferenceRecipe, SupervisedRecipe, answer_questions
from shared.tokenizers import ChatTemplate

TEXT = "A cat is a soft animal. A dog keeps the farm safe. Two birds share one old nest. The sea carries small boats.\n"


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(load_language_model()[1])


def test_every_token_of_a_plain_text_counts(template):
    text = plain_text(template.tokenizer, "a red circle")
    assert text.loss_mask == [False, *[True] * (len(text.token_ids) - 1)]
    assert template.tokenizer.decode(text.token_ids[1:]) == "a red circle"


def test_an_expert_of_four_sentences(tmp_path):
    bot = make_expert(expert_data([TEXT]), ExpertRecipe(steps=60), tmp_path / "run")
    right = {
        "what is a cat?": "A cat is a soft animal.",
        "tell me what the sea carries.": "The sea carries small boats.",
    }
    assert answer_questions(bot.model, bot.template, list(right)) == list(right.values())
    loaded = load_chatbot(tmp_path / "run")
    assert loaded.kind == "expert"
    assert answer_questions(loaded.model, loaded.template, list(right)) == list(right.values())
    assert not (tmp_path / "run" / "training").exists()
    replies = []
    typed = iter(["What is a CAT?", ""])
    chat(loaded, lambda: next(typed), replies.append)
    assert replies == ["A cat is a soft animal."]


def test_the_expert_is_evaluated_beside_word_matching(tmp_path, monkeypatch):
    (tmp_path / "page.txt").write_text(
        TEXT + "A page has words. A hat is warm. A pen writes words. A day ends at night.\n"
    )
    monkeypatch.setattr(expert_module, "read_exam", lambda: [("which animal is soft?", "A cat is a soft animal.")])
    monkeypatch.setattr(expert_module, "READ_ONLY_EVERY", 4)
    data = expert_data(read_texts(tmp_path))
    bot = make_expert(data, ExpertRecipe(steps=2, batch_size=8), tmp_path / "run")
    results = evaluate_expert(bot.model, bot.template, data, exam=True)
    assert results.keys() == {"held_out_wordings", "new_wordings", "read_only", "exam"}
    for row in results.values():
        assert 0 <= row["accuracy"] <= 1 and 0 <= row["word_matching"] <= 1
    assert results["exam"]["word_matching"] == 1.0


def test_a_teacher_is_written_and_loaded(tmp_path):
    recipe = TeacherRecipe(SupervisedRecipe(steps=1), PreferenceRecipe(steps=1), dialogues=8, pairs=4)
    made = make_teacher(recipe, tmp_path / "run")
    loaded = load_chatbot(tmp_path / "run")
    assert loaded.kind == "teacher"
    for one, other in zip(made.model.parameters(), loaded.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert evaluate_teacher(loaded.model, loaded.template, questions=3).keys() == {
        "patient",
        "right",
        "lead",
        "prefers",
    }
    with pytest.raises(CourseError, match="holds no chatbot"):
        load_chatbot(tmp_path)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "page.txt").write_text(TEXT)
    run = tmp_path / "run"

    def call(*arguments) -> int:
        return command_line.main([*map(str, arguments)])

    assert call("train", "expert", tmp_path, "--run", run, "--steps", 2) == 0
    assert "4 sentences" in capsys.readouterr().out
    assert call("evaluate", "expert", tmp_path, "--run", run) == 0
    assert "word matching" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert call("chat", "expert", "--run", run) == 0
    assert call("chat", "teacher", "--run", run) == 2
    assert "holds the expert" in capsys.readouterr().err
    assert call("chat", "expert", "--run", tmp_path / "nowhere") == 2
    assert call("train", "expert", tmp_path / "nowhere", "--run", run) == 2
    with pytest.raises(SystemExit):
        call("train", "teacher", tmp_path)


def test_the_teacher_keeps_the_current_scene(template, monkeypatch):
    bot = Chatbot("teacher", load_language_model()[0], template)
    questions = []

    def answer(_model, _template, asked_questions):
        questions.extend(asked_questions)
        return ["blue."]

    monkeypatch.setattr(chat_module, "answer_questions", answer)
    typed = iter(["what size is the star?", "A red moon. What shape is the red moon?", "where is the moon?", "new", ""])
    lines = []
    chat(bot, lambda: next(typed), lines.append)
    first = lines[0].splitlines()[0].removeprefix("in view: ")
    assert questions == [
        f"{first} what size is the star?",
        "a red moon. what shape is the red moon?",
        "a red moon. where is the moon?",
    ]
    assert lines[1:4] == ["blue."] * 3 and lines[4].startswith("in view: ") and lines[4] != lines[0]


def test_the_readme_shows_the_recorded_results():
    folder = Path(command_line.__file__).parent
    page = (folder / "README.md").read_text(encoding="utf-8")
    for row in json.loads((folder / "results.json").read_text(encoding="utf-8"))["measurements"]:
        values = row["expert"]
        assert f"| {row['name']} | {100 * fmean(values):.1f} % ± {100 * half_width(values):.1f} |" in page
