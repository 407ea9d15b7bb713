"""The pure-Python first stage: what it learns from, what its masks and its eye let through, and its learning."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from lessons.lesson_03_blip2 import reference
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal

ROOT = Path(__file__).parents[3]


def test_names_are_spelled_and_read_back():
    assert reference.spelled("two") == [0, *(3 + reference.LETTERS.index(letter) for letter in "two"), 2]
    assert reference.VOCABULARY == 3 + 15 and max(map(len, map(reference.spelled, reference.NAMES))) == reference.TEXT
    assert {len(text) for text in reference.padded([reference.spelled(name) for name in reference.NAMES])} == {7}


def test_the_eye_shows_every_pixel_and_says_where():
    image = digits.load().images[0]
    features = reference.frozen_eye([image]).tolist()[0]
    assert len(features) == 9 and {len(vector) for vector in features} == {22}
    for number, vector in enumerate(features):
        row, column = divmod(number, 3)
        window = [image[(2 * row + y) * 8 + 2 * column + x] / 16 for y in range(4) for x in range(4)]
        assert vector[:16] == window
        assert vector[16:19].index(1.0) == row and vector[19:].index(1.0) == column and sum(vector[16:]) == 2.0


def logits_of(model, features, texts):
    with no_grad():
        queries, words = model.retriever.together("generation", features, texts)
    return queries.data + words.data


@pytest.fixture
def small():
    random = Random(3)
    model = reference.FirstStage(reference.Retriever(3, 12, 2, 2, 16, 22, 8, random), random)
    for parameter in model.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    return (
        model,
        reference.frozen_eye(digits.load().images[:3]),
        [reference.spelled(name) for name in ("two", "six", "one")],
    )


def swapped_tasks(task, *arguments, original=reference.task_mask):
    return original({"generation": "matching", "matching": "generation"}.get(task, task), *arguments)


def test_swapped_masks_do_not_go_unnoticed(small, monkeypatch):
    model, features, texts = small
    before = logits_of(model, features, texts)
    monkeypatch.setattr(reference, "task_mask", swapped_tasks)
    assert max(abs(a - b) for a, b in zip(before, logits_of(model, features, texts), strict=True)) > 1e-3


def test_with_the_wrong_mask_a_writer_would_read_what_it_is_to_write(small, monkeypatch):
    """Under the mask of matching, the logits of a letter depend on the letter itself."""
    model, features, texts = small
    others = [[*text[:2], 5, *text[3:]] for text in texts]

    def first_letters():
        with no_grad():
            both = [model.write(features, some)[:, :2].data for some in (texts, others)]
        return max(abs(a - b) for a, b in zip(*both, strict=True))

    assert first_letters() < 1e-9
    monkeypatch.setattr(reference, "task_mask", swapped_tasks)
    assert first_letters() > 1e-3


def test_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "WRITTEN", 10)
    monkeypatch.setattr(reference, "SHOWN", 20)
    first, again = (reference.run(steps=1, seed=1) for _ in range(2))
    shown = capsys.readouterr().out
    assert f"{first['contrast_accuracy']:6.1%}" in shown and f"{first['baseline_accuracy']:6.1%}" in shown
    assert len(first["losses"]) == 1
    for key in ("contrast_accuracy", "writing_accuracy", "losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_it_learns_one_batch_by_heart():
    """Three digits and their names, in some steps on nothing else."""
    data, random = digits.load(), Random(0)
    few = data.subset([data.labels.index(name) for name in range(3)])
    model = reference.build(random)
    features, texts = reference.frozen_eye(few.images), [reference.spelled(name) for name in reference.NAMES[:3]]

    def loss_at(step):
        losses = model.losses(features, texts, random)
        return losses["contrastive"] + losses["matching"] + losses["generation"]

    optimizer = reference.AdamW(model.parameters().values(), 2e-2)
    losses = reference.train(model, loss_at, optimizer, 24, clip_norm=1.0)
    assert losses[-1] < 0.6 * losses[0]


def test_quick_run_works_with_nothing_installed():
    command = [sys.executable, "-S", "-m", "lessons.lesson_03_blip2.reference", "--quick", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=250)
    assert done.returncode == 0, done.stderr
    assert "its name written, every letter right" in done.stdout and "▁" in done.stdout
    losses = [float(line.split("loss ")[1].split()[0]) for line in done.stderr.splitlines()]
    assert losses[-1] < losses[0]
