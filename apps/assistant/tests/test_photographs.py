"""A small set of photographs with questions, as people bring one: trained on, continued, evaluated, served.

It has the form of DAQUAR (Malinowski and Fritz 2014): indoor scenes, some questions about each, and answers of one word
or several objects. The photographs are generated: JPEG files with noise, of several sizes, some of them on their side.
"""

import base64
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from fastapi.testclient import TestClient
from PIL import Image

from apps.assistant import __main__ as command_line
from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, load, save
from apps.assistant.records import read_records
from apps.assistant.training_data import TrainingData
from shared.serving import create_app

PHOTOGRAPHS, TEST_PHOTOGRAPHS = 200, 20
OBJECTS = {"lamp": (240, 220, 120), "sofa": (120, 40, 40), "table": (130, 90, 50), "bed": (90, 110, 200)}
SIZES = ((64, 48), (48, 64), (80, 60), (61, 47))
UPRIGHT_IS_CLOCKWISE = 6
"""The EXIF orientation of a camera that was held on its side."""


def photograph(number):
    """Return an indoor scene: noise, and one or two objects as blurred rectangles; and the objects' names."""
    rng = np.random.default_rng([PHOTOGRAPHS, number])
    width, height = SIZES[number % len(SIZES)]
    pixels = rng.normal(150, 25, (height, width, 3))
    names = list(rng.permutation(list(OBJECTS))[: 1 + number % 2])
    for name in names:
        left, top = rng.integers(width // 2), rng.integers(height // 2)
        pixels[top : top + height // 2, left : left + width // 3] = OBJECTS[name] + rng.normal(0, 15, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), names


@pytest.fixture(scope="module")
def daquar(tmp_path_factory):
    """A folder with 200 photographs, train.json and test.json."""
    folder = tmp_path_factory.mktemp("daquar")
    (folder / "images").mkdir()
    records = []
    for number in range(PHOTOGRAPHS):
        image, names = photograph(number)
        exif = Image.Exif()
        if number % 10 == 0:
            exif[0x0112] = UPRIGHT_IS_CLOCKWISE
        file = f"images/image{number + 1}.jpg"
        image.save(folder / file, quality=85, exif=exif)
        for question, answer in (
            (f"what is in the image{number + 1} ?", ", ".join(names)),
            (f"how many objects are there in the image{number + 1} ?", str(len(names))),
        ):
            records.append({"image": file, "prompt": question, "text": answer})
    first_test_record = 2 * (PHOTOGRAPHS - TEST_PHOTOGRAPHS)
    (folder / "train.json").write_text(json.dumps(records[:first_test_record]))
    (folder / "test.json").write_text(json.dumps(records[first_test_record:]))
    return folder


def call(*arguments) -> int:
    return command_line.main([*map(str, arguments)])


def weights(run):
    return safetensors.torch.load_file(run / "model" / "model.safetensors")


def test_a_set_of_photographs_trains_resumes_evaluates_and_serves(daquar, model_folders, tmp_path, monkeypatch, capsys):
    debug = load(CONFIGURATIONS / "debug.json")
    model = replace(debug.model, vision=str(model_folders[0]), language=str(model_folders[1]), context=120)
    stages = tuple(replace(stage, steps=3, warmup_steps=0) for stage in debug.stages)
    save(replace(debug, model=model, stages=stages, checkpoint_every=1), tmp_path / "mine.json")
    train = ("train", "--config", tmp_path / "mine.json", "--data", daquar / "train.json", "--output")

    assert call("check-data", daquar / "train.json") == 0
    assert len(read_records(daquar / "train.json")[0]) == 360
    assert call(*train, tmp_path / "complete") == 0

    batches, loss = [], TrainingData.loss

    def interrupted_loss(self, model, rows):
        batches.append(rows)
        if len(batches) == 5:  # in the second step of the second stage
            raise KeyboardInterrupt
        return loss(self, model, rows)

    monkeypatch.setattr(TrainingData, "loss", interrupted_loss)
    assert call(*train, tmp_path / "resumed") == 130
    changed = daquar / "images" / "image1.jpg"
    times = changed.stat()
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    capsys.readouterr()
    assert call("train", "--resume", tmp_path / "resumed") != 0
    assert "have changed since the run" in capsys.readouterr().err
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert call("train", "--resume", tmp_path / "resumed") == 0
    complete, resumed = weights(tmp_path / "complete"), weights(tmp_path / "resumed")
    assert all(torch.equal(complete[name], resumed[name]) for name in complete)

    capsys.readouterr()
    report = tmp_path / "report.json"
    options = ("--questions", daquar / "test.json", "--max-new-tokens", 6, "--report", report)
    assert call("evaluate", tmp_path / "resumed", *options) == 0
    assert "questions: 40\n  accuracy " in capsys.readouterr().out
    answers = json.loads(report.read_text())["questions"]["answers"]
    names = photograph(PHOTOGRAPHS - TEST_PHOTOGRAPHS)[1]
    assert [each["references"] for each in answers[:2]] == [[", ".join(names)], [str(len(names))]]

    served = Assistant.from_folder(tmp_path / "resumed" / "model")
    image, question = daquar / "images" / "image181.jpg", "what is in the image181 ?"
    with TestClient(create_app(lambda: served)) as client:
        while client.get("/health").status_code == 503:
            pass
        answer = client.post("/question", files={"image": image.read_bytes()}, data={"question": question}).json()
        encoded = base64.b64encode(image.read_bytes()).decode()
        reply = client.post("/chat", json={"message": question, "image": encoded}).json()
    assert answer["answer"] == reply["answer"] == served.answer_question(image, question, max_new_tokens=512)
