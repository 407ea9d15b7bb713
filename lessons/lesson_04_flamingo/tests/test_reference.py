"""The pure-Python Flamingo: its documents, its gates, what each word sees, what stays frozen, its learning."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from lessons.lesson_04_flamingo import reference
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal

ROOT = Path(__file__).parents[3]


@pytest.fixture
def small():
    """A model with everything redrawn, gates too; two rows of two images, and what the eye makes of them."""
    random = Random(3)
    width, layers, heads, mlp_dim = 12, 2, 2, 14
    language = reference.LanguageModel(width, layers, heads, mlp_dim, random)
    resampler = reference.PerceiverResampler(22, 2, 1, 2, 5, random)
    inserted = [reference.GatedCrossAttention(width, heads, mlp_dim, 22, random) for _ in range(layers)]
    model = reference.Flamingo(language, resampler, inserted)
    for parameter in model.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    rows, _ = reference.filled([reference.document(labels) for labels in ([3, 1], [7, 8])])
    return model, rows, reference.frozen_eye(digits.load().images[:4])


def logits_of(model, rows, features):
    with no_grad():
        return model(rows, features).tolist()


def moved(before, after):
    """Which tokens' logits differ, row by row."""
    return [
        [max(abs(a - b) for a, b in zip(x, y, strict=True)) > 1e-9 for x, y in zip(one, other, strict=True)]
        for one, other in zip(before, after, strict=True)
    ]


def test_documents_are_images_and_names():
    row = reference.document([2, 1])
    two, one = reference.spelled("two"), reference.spelled("one")
    assert row == [reference.IMAGE, *two, reference.IMAGE, *one] and two[-1] == reference.END
    assert reference.latest_images([5, *row]) == [-1, *[0] * 5, *[1] * 5]


def test_another_image_moves_the_words_that_follow_it_and_none_before(small):
    model, rows, features = small
    before = logits_of(model, rows, features)
    other = reference.frozen_eye([digits.load().images[k] for k in (0, 9, 2, 3)])  # the second image of the first row
    second = rows[0].index(reference.IMAGE, 1)
    after = logits_of(model, rows, other)
    assert moved(before, after) == [[place >= second for place in range(len(rows[0]))], [False] * len(rows[1])]


def test_closed_gates_change_nothing_to_the_bit_and_open_ones_do(small):
    model, rows, features = small
    with no_grad():
        language = model.language(rows).tolist()
    assert logits_of(model, rows, features) != language
    for inserted in model.inserted:
        for gate in (inserted.attention_gate, inserted.mlp_gate):
            gate.data = [0.0] * len(gate.data)
    assert logits_of(model, rows, features) == language


def test_frozen_weights_get_no_gradient_and_pass_it_on(small):
    model, rows, features = small
    frozen = model.language.parameters()
    reference.freeze(model.language)
    assert not any(name.startswith("language.") for name in model.parameters())
    reference.loss_of(model(rows, features), rows, [len(row) for row in rows]).backward()
    assert all(parameter.grad is None for parameter in frozen.values())
    assert all(any(slope != 0 for slope in parameter.grad) for parameter in model.parameters().values())


def every_image(looks, images, latents, original=reference.media_mask):
    """A mask that lets every word see every image."""
    mask = original(looks, images, latents)
    mask.data = [0.0] * len(mask.data)
    return mask


def test_a_mask_that_shows_all_images_does_not_go_unnoticed(small, monkeypatch):
    model, rows, features = small
    before = logits_of(model, rows, features)
    monkeypatch.setattr(reference, "media_mask", every_image)
    assert moved(before, logits_of(model, rows, features))[0][0]  # the first word now knows of the second image


def test_run_returns_what_it_prints_and_repeats_itself(capsys):
    first, again = (reference.run(text_steps=1, steps=1, asked=2, seed=1) for _ in range(2))
    shown = capsys.readouterr().out
    assert f"{first['accuracy']:6.1%}" in shown and "to the last bit: True" in shown
    assert first["unchanged_at_zero"] and first["frozen_stayed"] and first["gate"] > 0
    for key in ("accuracy", "losses", "text_losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_quick_run_works_with_nothing_installed():
    command = [sys.executable, "-S", "-m", "lessons.lesson_04_flamingo.reference", "--quick", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=280)
    assert done.returncode == 0, done.stderr
    assert "every bit: True" in done.stdout and "▁" in done.stdout
    losses = [float(line.split("loss ")[1].split()[0]) for line in done.stderr.splitlines() if "language" in line]
    assert losses[-1] < losses[0]
