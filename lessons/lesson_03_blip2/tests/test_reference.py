"""The pure-Python first stage: captions, masks, training, and the command line."""

import json
from random import Random

import pytest

from lessons.lesson_03_blip2 import reference
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.digit_windows import window_features
from shared.testing import has_curve, quick_run


def test_names_are_tokenized_letter_by_letter_and_padded():
    assert reference.tokenize("two") == [0, *(3 + reference.LETTERS.index(letter) for letter in "two"), 2]
    texts = list(map(reference.tokenize, reference.NAMES))
    assert reference.VOCAB_SIZE == 3 + 15 and max(map(len, texts)) == reference.MAX_TOKENS
    assert {len(text) for text in reference.pad(texts)} == {7}


def states_of(model, features, texts):
    with no_grad():
        queries, text = model.retriever.query_and_text_states("generation", features, texts)
    return queries.data + text.data


@pytest.fixture
def small():
    random = Random(3)
    model = reference.FirstStage(reference.Retriever(reference.Sizes(3, 12, 2, 2, 16, 22, 8), random), random)
    for parameter in model.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    texts = [reference.tokenize(name) for name in ("two", "six", "one")]
    return model, window_features(digits.load().images[:3]), texts


def swapped_tasks(task, *arguments, original=reference.task_mask):
    return original({"generation": "matching", "matching": "generation"}.get(task, task), *arguments)


def test_swapped_masks_change_the_states(small, monkeypatch):
    model, features, texts = small
    before = states_of(model, features, texts)
    monkeypatch.setattr(reference, "task_mask", swapped_tasks)
    assert max(abs(a - b) for a, b in zip(before, states_of(model, features, texts), strict=True)) > 1e-3


def test_with_the_mask_of_matching_a_letter_would_leak_into_its_own_prediction(small, monkeypatch):
    model, features, texts = small
    changed_texts = [[*text[:2], 5, *text[3:]] for text in texts]

    def change_of_first_logits():
        with no_grad():
            both = [model.generation_logits(features, some)[:, :2].data for some in (texts, changed_texts)]
        return max(abs(a - b) for a, b in zip(*both, strict=True))

    assert change_of_first_logits() < 1e-9
    monkeypatch.setattr(reference, "task_mask", swapped_tasks)
    assert change_of_first_logits() > 1e-3


def test_run_returns_what_it_prints_and_is_deterministic(capsys, monkeypatch):
    monkeypatch.setattr(reference, "GENERATED", 10)
    monkeypatch.setattr(reference, "CLASSIFIED", 20)
    first, again = (reference.run(steps=1, seed=1) for _ in range(2))
    printed = capsys.readouterr().out
    assert f"{first['contrast_accuracy']:6.1%}" in printed and f"{first['baseline_accuracy']:6.1%}" in printed
    assert len(first["losses"]) == 1
    for key in ("contrast_accuracy", "generation_accuracy", "losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_it_overfits_one_batch():
    data, random = digits.load(), Random(0)
    few = data.subset([data.labels.index(name) for name in range(3)])
    model = reference.FirstStage(reference.Retriever(reference.Sizes(), random), random)
    features, texts = window_features(few.images), list(map(reference.tokenize, reference.NAMES[:3]))

    def loss_at(step):
        losses = model.losses(features, texts, random)
        return losses["contrastive"] + losses["matching"] + losses["generation"]

    optimizer = reference.AdamW(model.parameters().values(), 2e-2)
    losses = reference.train(model, loss_at, optimizer, 24, clip_norm=1.0)
    assert losses[-1] < 0.6 * losses[0]


def test_quick_run_works_with_nothing_installed():
    done = quick_run("lessons.lesson_03_blip2.reference")
    assert "name generated with every letter correct" in done.stdout and has_curve(done.stdout)
    losses = [float(line.split("loss ")[1].split()[0]) for line in done.stderr.splitlines()]
    assert losses[-1] < losses[0]
