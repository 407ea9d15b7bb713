"""The command line from files to a service: train, kill, resume, evaluate, serve, chat; and two processes as one."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from PIL import Image

from apps.assistant import __main__ as command_line
from apps.assistant import evaluate
from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model
from apps.assistant.config import CONFIGURATIONS, AdapterSettings, load, save
from apps.assistant.toy_files import TEST_TYPES
from apps.assistant.training_data import TrainingData
from shared.course.lesson import ROOT
from shared.distributed.launch import launch_function
from shared.errors import CourseError
from shared.serving import UnsupportedRequest
from shared.training import read_metrics


@pytest.fixture(scope="module")
def short(model_folders):
    """The configuration `debug` with tiny models, for a few steps."""
    debug = load(CONFIGURATIONS / "debug.json")
    model = replace(debug.model, vision=str(model_folders[0]), language=str(model_folders[1]), context=80)
    alignment, instruction = debug.stages
    return replace(
        debug,
        model=model,
        stages=(
            replace(alignment, steps=3, warmup_steps=0, batch_size=4),
            replace(instruction, steps=6, warmup_steps=0, batch_size=4),
        ),
        toy_examples=16,
        log_every=1,
        checkpoint_every=2,
    )


@pytest.fixture(scope="module")
def trained(short, tmp_path_factory):
    """A run without an interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    save(short, folder / "mine.json")
    assert call(["train", "--config", str(folder / "mine.json"), "--output", str(folder / "run")]) == 0
    return folder / "run"


def call(arguments) -> int:
    return command_line.main(arguments)


def metrics(run, stage):
    return read_metrics(run / stage / "metrics.jsonl")


def weights(run):
    return safetensors.torch.load_file(run / "model" / "model.safetensors")


KILLED = """
import os, signal, sys
from apps.assistant.__main__ import main
from apps.assistant.training_data import TrainingData
batches, loss = [], TrainingData.loss

def loss_until_killed(self, model, rows):
    batches.append(rows)
    if len(batches) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, model, rows)

TrainingData.loss = loss_until_killed
main(["train", *sys.argv[2:]])
"""


def test_a_killed_run_resumes_to_the_same_weights(short, trained, tmp_path, monkeypatch):
    """It is killed in the second stage, between two checkpoints."""
    save(short, tmp_path / "mine.json")
    command = [
        sys.executable,
        "-c",
        KILLED,
        "7",
        "--config",
        str(tmp_path / "mine.json"),
        "--output",
        str(tmp_path / "run"),
    ]
    killed = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "run" / "model").exists()
    assert [line["step"] for line in metrics(tmp_path / "run", "alignment")] == [1, 2, 3]
    batches, loss = [], TrainingData.loss
    monkeypatch.setattr(TrainingData, "loss", lambda self, model, rows: batches.append(rows) or loss(self, model, rows))
    assert call(["train", "--resume", str(tmp_path / "run" / "instruction" / "checkpoint.safetensors")]) == 0
    assert len(batches) == 4, "the first stage was saved completely, the second one after two of six steps"
    before, after = weights(trained), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_each_stage_trains_only_what_it_names(short, trained, tmp_path):
    start = build_model(short.model).model.state_dict()
    end = Assistant.from_folder(trained / "model").model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert {name.split(".")[0] for name in changed} == {"projector", "language_model"}
    assert all(name in changed for name in start if name.startswith("projector."))
    save(replace(short, stages=short.stages[:1]), tmp_path / "first.json")
    assert call(["train", "--config", str(tmp_path / "first.json"), "--output", str(tmp_path / "run")]) == 0
    first = Assistant.from_folder(tmp_path / "run" / "model").model.state_dict()
    assert {name.split(".")[0] for name in start if not torch.equal(start[name], first[name])} == {"projector"}


def test_adapters_of_quantized_weights_are_merged_into_the_original_weights(short, tmp_path):
    """As in `small_scale`: accumulation, bfloat16, recomputed blocks."""
    adapters = AdapterSettings(("*.query", "*.value"), rank=2, alpha=16.0)
    stages = tuple(replace(stage, accumulate=2, batch_size=2, steps=3, learning_rate=0.05) for stage in short.stages)
    config = replace(short.model, weights="int8", adapters=adapters)
    small = replace(short, model=config, stages=stages, precision="bfloat16", recompute=True, checkpoint_every=3)
    save(small, tmp_path / "small.json")
    assert call(["train", "--config", str(tmp_path / "small.json"), "--output", str(tmp_path / "run")]) == 0
    assert {path.name for path in (tmp_path / "run" / "adapters").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    before = build_model(replace(config, weights="float32", adapters=None)).model
    after = Assistant.from_folder(tmp_path / "run" / "model").model
    assert not torch.equal(before.projector.first.weight, after.projector.first.weight), "it is trained in both stages"
    start, end = before.language_model.state_dict(), after.language_model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == {f"blocks.{n}.attention.{part}.weight" for n in range(2) for part in ("query", "value")}
    # Each changes by its low-rank correction, and not by the rounding to eight bits.
    for name in changed:
        assert torch.linalg.matrix_rank(end[name] - start[name], rtol=1e-3) == 2


def test_two_processes_train_as_one(short, trained, tmp_path):
    save(short, tmp_path / "mine.json")
    done = launch_function(
        2, command_line.main, ["train", "--config", str(tmp_path / "mine.json"), "--output", str(tmp_path / "run")]
    )
    assert done.returncode == 0 and (tmp_path / "run" / "model").is_dir(), done.stderr
    alone, together = weights(trained), weights(tmp_path / "run")
    for name in alone:
        torch.testing.assert_close(alone[name], together[name], atol=1e-4, rtol=1e-3)
    for stage in ("alignment", "instruction"):
        one, two = (metrics(run, stage) for run in (trained, tmp_path / "run"))
        assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in two], abs=1e-4)


def test_a_run_is_evaluated_on_its_held_out_files(trained, tmp_path, capsys):
    assert (
        call(["evaluate", str(trained), "--limit", "6", "--max-new-tokens", "6", "--report", str(tmp_path / "r.json")])
        == 0
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report["captions"]["scores"]) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr", "ROUGE-L"}
    assert set(report["questions"]["scores"]) == {
        "accuracy",
        *(f"accuracy/{question_type}" for question_type in TEST_TYPES[:6]),
    }
    assert report["captions"]["count"] == report["questions"]["count"] == len(report["questions"]["answers"]) == 6
    assert "CIDEr" in capsys.readouterr().out


def is_ready(address):
    try:
        return json.load(urllib.request.urlopen(f"{address}/health"))["status"] != "starting"
    except urllib.error.HTTPError:  # 503 until the model is loaded
        return False


def test_the_service_captions_like_the_assistant_in_python(trained, tmp_path, noise):
    """Ctrl-C ends the service in order."""
    service = subprocess.Popen(
        [sys.executable, "-m", "apps.assistant", "serve", str(trained), "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(line for line in service.stderr if line.startswith("http")).split()[0]
        while not is_ready(address):
            time.sleep(0.1)
        image = tmp_path / "image.png"
        noise(20, 20).save(image)
        body = b"\r\n".join(
            (
                b"--edge",
                b'Content-Disposition: form-data; name="image"; filename="image.png"',
                b"Content-Type: image/png",
                b"",
                image.read_bytes(),
                b"--edge--",
                b"",
            )
        )
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        response = urllib.request.urlopen(urllib.request.Request(f"{address}/caption", body, headers))
        fields = json.load(response)
        assistant = Assistant.from_folder(trained / "model")
        assert assistant.caption_image(image, max_new_tokens=512) in fields.values()
        service.send_signal(signal.SIGINT)
        assert service.wait(timeout=60) == 0
    finally:
        service.kill()
        service.wait()


def test_the_default_folder_is_the_checkpoint_then_the_debug_run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "CHECKPOINT", tmp_path / "checkpoint")
    monkeypatch.setattr(command_line, "DEBUG_RUN", tmp_path / "debug")
    assert call(["serve"]) == 2
    assert "make checkpoint-5" in capsys.readouterr().err
    (tmp_path / "debug").symlink_to(trained)
    assert command_line.find_assistant(None) == tmp_path / "debug" / "model"
    (tmp_path / "checkpoint").symlink_to(trained / "model")
    assert command_line.find_assistant(None) == tmp_path / "checkpoint"
    assert command_line.find_assistant(trained) == trained / "model"
    with pytest.raises(CourseError, match="holds no assistant"):
        command_line.find_assistant(tmp_path)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_contradictory_commands_are_refused(short, trained, tmp_path, capsys):
    for command, message in (
        ([], "nothing to train; use --debug"),
        (["--config", str(tmp_path / "none.json")], "none.json does not exist"),
        (["--resume", str(tmp_path)], "belongs to no run"),
        (["--resume", str(trained), "--output", str(tmp_path)], "continues in its own folder"),
        (["--resume", str(trained), "--debug"], "has another configuration"),
        (["--resume", str(trained), "--connector", "embedding"], "has another configuration"),
    ):
        assert call(["train", *command]) == 2
        assert message in capsys.readouterr().err


def test_own_data_replace_those_of_the_configuration(short, trained, tmp_path, capsys):
    save(short, tmp_path / "mine.json")
    own = [{"image": "a.png", "text": "a star"}, {"text": "no image"}]
    (tmp_path / "own.json").write_text(json.dumps(own))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    command = [
        "--config",
        str(tmp_path / "mine.json"),
        "--data",
        str(tmp_path / "own.json"),
        "--output",
        str(tmp_path / "run"),
    ]
    assert call(["train", *command]) == 2
    assert "1 bad records of 2\n  1: no image" in capsys.readouterr().err
    save(replace(short, skip_bad=True), tmp_path / "mine.json")
    (tmp_path / "own.json").write_text(
        json.dumps(own[:1] * 4 + [{"image": "a.png", "text": "x", "prompt": "star " * 100}])
    )
    save(replace(short, stages=(replace(short.stages[0], steps=1),), skip_bad=True), tmp_path / "mine.json")
    assert call(["train", *command]) == 0
    output = capsys.readouterr()
    assert "1 of 5 records are skipped:\n  1 × no answer within the first 80 tokens (first: 4)" in output.err
    assert "the batches have" not in output.out


def test_fewer_records_than_a_batch_train_with_smaller_batches(short, tmp_path, capsys):
    save(replace(short, stages=(replace(short.stages[0], steps=1),)), tmp_path / "mine.json")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "own.json").write_text(json.dumps([{"image": "a.png", "text": "a star"}] * 3))
    command = ["--config", str(tmp_path / "mine.json"), "--data", str(tmp_path / "own.json")]
    assert call(["train", *command, "--output", str(tmp_path / "run")]) == 0
    assert "the batches have 3 records instead of 4" in capsys.readouterr().out


class FixedAnswers:
    """An assistant with prepared answers that records its requests."""

    def __init__(self, answers):
        self.answers, self.requests, self.context_length = list(answers), [], 100

    def count_tokens(self, request):
        return len(request.messages[-1].text)

    def complete(self, requests):
        self.requests += requests
        return [self.answers.pop(0) for _ in requests]


def test_scores_are_those_of_the_answers(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    questions = [
        {
            "image": "a.png",
            "prompt": f"number {number}?",
            "text": "a star",
            "question_type": "even" if number % 2 == 0 else "odd",
        }
        for number in range(4)
    ]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    items = evaluate.question_items(str(tmp_path / "q.json"), "what is it?")
    assistant = FixedAnswers(["a star", "a star", "a star", "a moon"])
    results = evaluate.evaluate(assistant, items[:1], items[1:])
    assert results["captions"]["scores"]["BLEU-2"] == pytest.approx(1.0)
    assert results["questions"]["scores"] == {"accuracy": 2 / 3, "accuracy/odd": 1 / 2, "accuracy/even": 1.0}
    assert [each.messages[-1].text for each in assistant.requests] == [f"number {number}?" for number in range(4)]
    assert all(len(each.messages[-1].images) == 1 for each in assistant.requests)
    assert results["questions"]["answers"][2] == {
        "image": str(tmp_path / "a.png"),
        "question": "number 3?",
        "answer": "a moon",
        "references": ["a star"],
    }


def test_an_evaluation_without_data_is_refused(trained, capsys):
    assert call(["evaluate", str(trained / "model")]) == 2
    assert "nothing to evaluate on" in capsys.readouterr().err


def test_answers_to_equal_questions_become_references_of_one_item(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    conversation = [("human", "<image>\nwhat?"), ("gpt", "a star"), ("human", "where?"), ("gpt", "left")]
    records = [
        {"image": "a.png", "prompt": "what?", "text": "a star"},
        {"image": "a.png", "prompt": "what?", "text": "one star"},
        {"image": "a.png", "conversations": [{"from": role, "value": text} for role, text in conversation]},
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    items = evaluate.caption_items(str(tmp_path / "records.json"), "what is it?")
    assert [each.references for each in items] == [("a star", "one star", "a star"), ("left",)]
    assert len(items[1].turns) == 3
    with pytest.raises(CourseError, match="does not exist"):
        evaluate.question_items(str(tmp_path / "none.json"), "what is it?")


def test_bad_records_are_listed(tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    good = {"image": "a.png", "text": "a star"}
    (tmp_path / "good.json").write_text(json.dumps([good]))
    (tmp_path / "bad.json").write_text(json.dumps([good, None]))
    assert call(["check-data", str(tmp_path / "good.json")]) == 0
    assert call(["check-data", str(tmp_path / "bad.json")]) == 1
    assert "1 bad records of 2\n  1: a NoneType" in capsys.readouterr().out
    assert call(["check-data", str(tmp_path / "none.json")]) == 2


class FixedReplies:
    """An assistant that records its chat calls and refuses the word "long"."""

    def __init__(self):
        self.calls = []

    def chat(self, text, *, images, history):
        if text == "long":
            raise UnsupportedRequest("leave out the oldest turns")
        self.calls.append((text, list(images), history))
        return f"reply to {text}", (*history, text)


def test_a_chat_sends_the_image_once_and_keeps_the_history():
    assistant, replies = FixedReplies(), []
    typed = iter(["what?", "long", "where?", ""])
    command_line.chat(assistant, ["image.png"], lambda: next(typed), replies.append)
    assert assistant.calls == [("what?", ["image.png"], ()), ("where?", [], ("what?",))]
    assert replies == ["reply to what?", "error: leave out the oldest turns", "reply to where?"]
