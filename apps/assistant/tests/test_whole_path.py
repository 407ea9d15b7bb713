"""From files to a service, through the command lines: train, kill, resume, evaluate, serve; and two processes as one."""

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

from apps.assistant import evaluate, serve, train
from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, AdaptersChoice, load, save
from apps.assistant.examples import Examples
from apps.assistant.toy import KINDS
from shared.course.lesson import ROOT
from shared.distributed.launch import launch_function
from shared.errors import CourseError
from shared.training import read_metrics

ROOM = "apps.assistant"


@pytest.fixture(scope="module")
def short(towers):
    """The configuration `debug`, on tiny towers and for a few steps."""
    debug = load(CONFIGURATIONS / "debug.json")
    model = replace(debug.model, vision=str(towers[0]), language=str(towers[1]), context=80)
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
    """A run that was never cut."""
    folder = tmp_path_factory.mktemp("uncut")
    save(short, folder / "mine.json")
    assert train.main(["--config", str(folder / "mine.json"), "--output", str(folder / "run")]) == 0
    return folder / "run"


def metrics(run, stage):
    return read_metrics(run / stage / "metrics.jsonl")


def weights(run):
    return safetensors.torch.load_file(run / "model" / "model.safetensors")


KILLED = f"""
import os, signal, sys, torch
from {ROOM} import train
from {ROOM}.examples import Examples
batches, loss = [], Examples.loss

def loss_until_killed(self, model, rows):
    batches.append(rows)
    if len(batches) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, model, rows)

Examples.loss = loss_until_killed
train.main(sys.argv[2:])
"""


def test_a_run_that_is_killed_goes_on_to_the_same_weights(short, trained, tmp_path, monkeypatch):
    """In the midst of the second stage, between two checkpoints."""
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
    batches, loss = [], Examples.loss
    monkeypatch.setattr(Examples, "loss", lambda self, model, rows: batches.append(rows) or loss(self, model, rows))
    assert train.main(["--resume", str(tmp_path / "run" / "instruction" / "checkpoint.safetensors")]) == 0
    assert len(batches) == 4, "of the second stage's six steps two had been saved, and of the first stage all"
    before, after = weights(trained), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_each_stage_moves_what_it_names_and_nothing_else(short, trained, towers, tmp_path):
    start = train.join(short.model).model.state_dict()
    end = Assistant.from_folder(trained / "model").model.state_dict()
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert {name.split(".")[0] for name in moved} == {"projector", "language"}
    assert all(name in moved for name in start if name.startswith("projector."))
    save(replace(short, stages=short.stages[:1]), tmp_path / "first.json")
    assert train.main(["--config", str(tmp_path / "first.json"), "--output", str(tmp_path / "run")]) == 0
    first = Assistant.from_folder(tmp_path / "run" / "model").model.state_dict()
    assert {name.split(".")[0] for name in start if not torch.equal(start[name], first[name])} == {"projector"}


def test_adapters_on_eight_bits_end_up_in_whole_weights(short, tmp_path):
    """As in `small_scale`: accumulation, bfloat16, recomputed blocks; what is saved says what was trained."""
    adapters = AdaptersChoice(("*.query", "*.value"), rank=2, alpha=16.0)
    stages = tuple(replace(stage, accumulate=2, batch_size=2, steps=3, learning_rate=0.05) for stage in short.stages)
    choice = replace(short.model, weights="int8", adapters=adapters)
    small = replace(short, model=choice, stages=stages, precision="bfloat16", recompute=True, checkpoint_every=3)
    save(small, tmp_path / "small.json")
    assert train.main(["--config", str(tmp_path / "small.json"), "--output", str(tmp_path / "run")]) == 0
    assert {path.name for path in (tmp_path / "run" / "adapters").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    before = train.join(replace(choice, weights="float32", adapters=None)).model
    after = Assistant.from_folder(tmp_path / "run" / "model").model
    assert not torch.equal(before.projector.first.weight, after.projector.first.weight), "it has learned in both stages"
    start, end = before.language_model.state_dict(), after.language_model.state_dict()
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert moved == {f"blocks.{n}.attention.{part}.weight" for n in range(2) for part in ("query", "value")}
    # Each by its low-rank correction, and not by what eight bits had rounded away.
    for name in moved:
        assert torch.linalg.matrix_rank(end[name] - start[name], rtol=1e-3) == 2


def test_two_processes_train_as_one(short, trained, tmp_path):
    save(short, tmp_path / "mine.json")
    done = launch_function(2, train.main, ["--config", str(tmp_path / "mine.json"), "--output", str(tmp_path / "run")])
    assert done.returncode == 0 and (tmp_path / "run" / "model").is_dir(), done.stderr
    alone, together = weights(trained), weights(tmp_path / "run")
    for name in alone:
        torch.testing.assert_close(alone[name], together[name], atol=1e-4, rtol=1e-3)
    for stage in ("alignment", "instruction"):
        one, two = (metrics(run, stage) for run in (trained, tmp_path / "run"))
        assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in two], abs=1e-4)


def test_the_run_is_evaluated_on_what_was_held_out(trained, tmp_path, capsys):
    assert (
        evaluate.main([str(trained), "--limit", "6", "--max-new-tokens", "6", "--report", str(tmp_path / "r.json")])
        == 0
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report["captions"]["scores"]) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr", "ROUGE-L"}
    assert set(report["questions"]["scores"]) == {"accuracy", *(f"accuracy/{kind}" for kind in KINDS)}
    assert report["captions"]["count"] == report["questions"]["count"] == len(report["questions"]["said"]) == 6
    assert "CIDEr" in capsys.readouterr().out


def ready(address):
    try:
        return json.load(urllib.request.urlopen(f"{address}/health"))["status"] != "starting"
    except urllib.error.HTTPError:  # 503 until the model is there
        return False


def test_the_command_line_serves_what_was_trained(trained, tmp_path, noise):
    """A caption over HTTP is the caption in Python; Ctrl-C ends it in order."""
    service = subprocess.Popen(
        [sys.executable, "-m", f"{ROOM}.serve", str(trained), "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(line for line in service.stderr if line.startswith("http")).split()[0]
        while not ready(address):
            time.sleep(0.1)
        picture = tmp_path / "picture.png"
        noise(20, 20).save(picture)
        body = b"\r\n".join(
            (
                b"--edge",
                b'Content-Disposition: form-data; name="image"; filename="picture.png"',
                b"Content-Type: image/png",
                b"",
                picture.read_bytes(),
                b"--edge--",
                b"",
            )
        )
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        answered = urllib.request.urlopen(urllib.request.Request(f"{address}/caption", body, headers))
        said = json.load(answered)
        assistant = Assistant.from_folder(trained / "model")
        assert assistant.caption_image(picture, max_new_tokens=512) in said.values()
        service.send_signal(signal.SIGINT)
        assert service.wait(timeout=60) == 0
    finally:
        service.kill()
        service.wait()


def test_what_is_served_when_nobody_names_a_folder(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serve, "CHECKPOINT", tmp_path / "kept")
    monkeypatch.setattr(serve, "LAST_TRAINED", tmp_path / "last")
    assert serve.main([]) == 2
    assert "make checkpoint-5" in capsys.readouterr().err
    (tmp_path / "last").symlink_to(trained)
    assert serve.chosen(None) == tmp_path / "last" / "model"
    (tmp_path / "kept").symlink_to(trained / "model")
    assert serve.chosen(None) == tmp_path / "kept"
    assert serve.chosen(trained) == trained / "model"
    with pytest.raises(CourseError, match="holds no assistant"):
        serve.chosen(tmp_path)


# ── What goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_commands_that_mean_nothing_are_told(short, trained, tmp_path, capsys):
    for command, said in (
        ([], "nothing to train: give --debug"),
        (["--config", str(tmp_path / "none.json")], "none.json cannot be read"),
        (["--resume", str(tmp_path)], "belongs to no run"),
        (["--resume", str(trained), "--output", str(tmp_path)], "goes on in its own folder"),
        (["--resume", str(trained), "--debug"], "was started with another configuration"),
        (["--resume", str(trained), "--connector", "embedding"], "was started with another configuration"),
    ):
        assert train.main(command) == 2
        assert said in capsys.readouterr().err


def test_data_of_ones_own_take_the_place_of_the_configurations(short, trained, tmp_path, capsys):
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
    assert train.main(command) == 2
    assert "1 bad records of 2\n  1: no image" in capsys.readouterr().err
    save(replace(short, skip_bad=True), tmp_path / "mine.json")
    assert train.main(command) == 2
    assert "1 records do not fill a batch of 4" in capsys.readouterr().err
    (tmp_path / "own.json").write_text(
        json.dumps(own[:1] * 4 + [{"image": "a.png", "text": "x", "prompt": "star " * 100}])
    )
    save(replace(short, stages=(replace(short.stages[0], steps=1),), skip_bad=True), tmp_path / "mine.json")
    assert train.main(command) == 0
    assert "4: no answer within the first 80 tokens" in capsys.readouterr().err


class Knowing:
    """Says what it was told to say, and keeps what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked = list(answers), []

    def write(self, requests):
        self.asked += requests
        return [self.answers.pop(0) for _ in requests]


def test_scores_are_those_of_what_was_said(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    questions = [
        {
            "image": "a.png",
            "prompt": f"number {number}?",
            "text": "a star",
            "kind": "even" if number % 2 == 0 else "odd",
        }
        for number in range(4)
    ]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    asked = evaluate.questions_of(str(tmp_path / "q.json"))
    knowing = Knowing(["a star", "a star", "a star", "a moon"])
    found = evaluate.evaluate(knowing, asked[:1], asked[1:])
    assert found["captions"]["scores"]["BLEU-2"] == pytest.approx(1.0)
    assert found["questions"]["scores"] == {"accuracy": 2 / 3, "accuracy/odd": 1 / 2, "accuracy/even": 1.0}
    assert [each.messages[-1].text for each in knowing.asked] == [f"number {number}?" for number in range(4)]
    assert all(len(each.messages[-1].images) == 1 for each in knowing.asked)
    assert found["questions"]["said"][2] == {
        "image": str(tmp_path / "a.png"), "asked": "number 3?", "said": "a moon", "expected": ["a star"],
    }  # fmt: skip


def test_an_evaluation_of_nothing_is_told(trained, capsys):
    assert evaluate.main([str(trained / "model")]) == 2
    assert "nothing to evaluate on" in capsys.readouterr().err


def test_questions_asked_of_many_are_one_question_with_many_answers(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    talk = [("human", "<image>\nwhat?"), ("gpt", "a star"), ("human", "where?"), ("gpt", "left")]
    records = [
        {"image": "a.png", "prompt": "what?", "text": "a star"},
        {"image": "a.png", "prompt": "what?", "text": "one star"},
        {"image": "a.png", "conversations": [{"from": role, "value": text} for role, text in talk]},
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    asked = evaluate.captions_of(str(tmp_path / "records.json"))
    assert [each.answers for each in asked] == [("a star", "one star", "a star"), ("left",)]
    assert len(asked[1].before) == 3
    with pytest.raises(CourseError, match="is not there"):
        evaluate.questions_of(str(tmp_path / "none.json"))
