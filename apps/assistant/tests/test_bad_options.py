"""What does not fit is one line that names it, before anything is computed or overwritten."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from apps.assistant import __main__ as command_line
from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model
from apps.assistant.config import CONFIGURATIONS, AdapterSettings, ModelConfig, load, save
from apps.assistant.evaluate import evaluate, question_items
from apps.assistant.train_options import LORA
from shared.errors import CourseError

LONG = "x" * 300


def call(*arguments) -> int:
    return command_line.main([*map(str, arguments)])


@pytest.fixture
def files(tmp_path) -> Path:
    """A file of questions; the second prompt is longer than the context of 120 tokens, and so is the fourth."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    prompts = ("what?", "star " * 200, "where?", "moon " * 200)
    questions = [{"image": "a.png", "prompt": prompt, "text": "a star"} for prompt in prompts]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    return tmp_path


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def model(assistant, tmp_path) -> Path:
    assistant.save(tmp_path / "model")
    return tmp_path / "model"


def test_prompts_longer_than_the_context_are_listed_before_anything_is_generated(assistant, files, monkeypatch):
    monkeypatch.setattr(Assistant, "complete", None)
    items = question_items(str(files / "q.json"), "describe the image.")
    with pytest.raises(CourseError) as error:
        evaluate(assistant, [], items)
    assert error.match(r"questions: 2 of 4 prompts do not fit into the context of 120 tokens")
    assert error.match(r"\n  1: a prompt of \d+ tokens\n  3: a prompt of")
    with pytest.raises(CourseError, match="captions: 1 of 1"):
        evaluate(assistant, items[1:2], items[:1])


@pytest.mark.parametrize("option", ["--limit", "--max-new-tokens"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_an_evaluation_of_nothing_overwrites_no_report(model, files, option, value, capsys):
    (model / "evaluation.json").write_text("earlier")
    with pytest.raises(SystemExit) as status:
        call("evaluate", model, "--questions", files / "q.json", option, value)
    assert status.value.code == 2 and f"argument {option}" in capsys.readouterr().err
    assert (model / "evaluation.json").read_text() == "earlier"


def test_a_report_that_cannot_be_written_is_named_before_the_model_is_loaded(model, files, monkeypatch, capsys):
    monkeypatch.setattr(Assistant, "from_folder", None)
    assert call("evaluate", model, "--questions", files / "q.json", "--report", files) == 2
    assert "--report takes the name of a file" in capsys.readouterr().err


# ── Devices, folders, names ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", [["serve"], ["chat"], ["evaluate", "--questions"]])
def test_a_device_that_does_not_exist_is_one_line(model, files, command, capsys):
    name, *options = command
    arguments = [*options, files / "a.json"] if options else []
    (files / "a.json").write_text(json.dumps([{"image": "a.png", "prompt": "what?", "text": "a star"}]))
    for device, message in (("cuda", "this machine has only cpu"), ("quantum", "'quantum' is no device")):
        assert call(name, model, *arguments, "--device", device) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_configuration_for_another_device_is_refused_before_the_models_are_loaded(device, tmp_path, capsys):
    missing = ModelConfig("nowhere", "nowhere")
    save(replace(load(CONFIGURATIONS / "debug.json"), model=missing, device=device), tmp_path / "mine.json")
    assert call("train", "--config", tmp_path / "mine.json", "--output", tmp_path / "run") == 2
    assert "'cuda' was requested" in capsys.readouterr().err


def test_names_that_no_file_can_have_are_one_line(tmp_path, capsys):
    for arguments in (
        ("train", "--config", LONG),
        ("train", "--resume", LONG),
        ("serve", LONG),
        ("chat", tmp_path, "--image", LONG),
        ("evaluate", tmp_path, "--questions", LONG),
        ("check-data", LONG),
        ("train", "--debug", "--data", LONG),
    ):
        with pytest.raises(SystemExit) as status:
            call(*arguments)
        assert status.value.code == 2
        assert "names of at most 255 bytes" in capsys.readouterr().err


def test_names_in_a_configuration_that_no_folder_can_have_are_one_line(model_folders, tmp_path, capsys):
    debug = load(CONFIGURATIONS / "debug.json")
    model = replace(debug.model, vision=str(model_folders[0]), language=str(model_folders[1]))
    stages = (replace(debug.stages[0], data=(LONG,)),)
    one, two = replace(debug, model=replace(model, vision=LONG)), replace(debug, model=model, stages=stages)
    for number, changed in enumerate((one, two)):
        save(changed, tmp_path / "mine.json")
        assert call("train", "--config", tmp_path / "mine.json", "--output", tmp_path / f"{number}") == 2
        assert LONG in (error := capsys.readouterr().err) and error.startswith("error: ")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (["serve"], "--port", "65536"),
        (["serve"], "--port", "-1"),
        (["write-toy", "x"], "--examples", "0"),
        (["write-toy", "x"], "--size", "0"),
        (["train", "--debug"], "--lora", "0"),
        (["train", "--debug"], "--tracker", "neptune"),
    ],
)
def test_options_outside_of_their_range_are_named(command, option, value, capsys):
    with pytest.raises(SystemExit) as status:
        call(*command, option, value)
    assert status.value.code == 2 and f"argument {option}" in capsys.readouterr().err


# ── Configurations ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layers", [(9, -2), (-4,), (3,)])
def test_hidden_states_that_the_encoder_does_not_have_are_named(model_folders, layers):
    """The encoder has two blocks, so three hidden states."""
    config = ModelConfig(*map(str, model_folders), feature_layers=layers)
    with pytest.raises(CourseError, match=rf"feature_layers: {layers[0]}; the 2 blocks .* 0 to 2, or -3 to -1"):
        build_model(config)
    for layer in (-3, 2):
        build_model(replace(config, feature_layers=(layer,)))


def test_bad_options_are_read_like_the_configuration(files, capsys):
    """The checker takes the same options as training."""
    records = [
        {"image": str(files / "a.png"), "prompt": "what?", "text": "a star"},
        {"image": str(files / "a.png"), "prompt": "what?", "text": "a moon"},
    ]
    (files / "own.json").write_text(json.dumps(records))
    assert call("check-data", files / "own.json") == 1
    assert capsys.readouterr().out.count("outside_images") == 2
    assert call("check-data", files / "own.json", "--outside-images") == 1
    assert "1: the question of record 0" in capsys.readouterr().out
    assert call("check-data", files / "own.json", "--outside-images", "--several-answers") == 0


# ── Switches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def configuration(*switches):
    options = command_line.parse_options(["train", *switches])
    return command_line.read_train_options(options, Path("runs"))[0]


def test_switches_change_the_configuration():
    debug, small = load(CONFIGURATIONS / "debug.json"), load(CONFIGURATIONS / "small_scale.json")
    assert configuration("--debug") == debug
    lora = configuration("--debug", "--lora").model
    assert lora.adapters == LORA == small.model.adapters and lora.weights == "float32"
    assert configuration("--debug", "--lora", "4", "--8bit").model.weights == "int8"
    assert configuration("--debug", "--lora", "--4bit").model.weights == "nf4"
    assert configuration("--small-scale", "--4bit").model.weights == "nf4"
    rank_two = configuration("--small-scale", "--lora", "2").model.adapters
    assert rank_two == AdapterSettings(LORA.targets, rank=2, alpha=4.0, dropout=LORA.dropout)
    assert configuration("--debug", "--tracker", "wandb").tracker == "wandb"
    changed = configuration("--debug", "--skip-bad", "--outside-images", "--several-answers")
    assert changed == replace(debug, skip_bad=True, outside_images=True, several_answers=True)


def test_stored_weights_without_adapters_are_refused(capsys):
    assert call("train", "--debug", "--8bit") == 2
    assert (
        "weights stored as int8 cannot be trained; add adapters, which can (--lora adds them)"
        in capsys.readouterr().err
    )
