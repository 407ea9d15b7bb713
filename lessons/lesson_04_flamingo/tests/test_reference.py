"""The pure-Python Flamingo: documents, gates, masks, frozen weights, and the command line."""

import json
from random import Random

import pytest

from lessons.lesson_04_flamingo import reference
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.digit_windows import window_features
from shared.testing import has_curve, quick_run


@pytest.fixture
def small():
    """A model with all weights redrawn, gates too; two rows of two images, and their features."""
    random = Random(3)
    sizes = reference.Sizes(12, 2, 2, 14, 22, latents=2, resampler_depth=1, resampler_heads=2, head_dim=5)
    model = reference.build_flamingo(reference.build_language_model(sizes, random), sizes, random)
    for parameter in model.parameters().values():
        parameter.data = normal(parameter.shape, 0.4, random).data
    rows, _ = reference.pad([reference.document(labels) for labels in ([3, 1], [7, 8])])
    return model, rows, window_features(digits.load().images[:4])


def logits_of(model, rows, features):
    with no_grad():
        return model(rows, features).tolist()


def changed_tokens(before, after):
    """Return which tokens' logits differ, row by row."""
    return [
        [max(abs(a - b) for a, b in zip(x, y, strict=True)) > 1e-9 for x, y in zip(row, other, strict=True)]
        for row, other in zip(before, after, strict=True)
    ]


def test_documents_are_images_and_names():
    row = reference.document([2, 1])
    two, one = reference.tokenize("two"), reference.tokenize("one")
    assert row == [reference.IMAGE, *two, reference.IMAGE, *one] and two[-1] == reference.END
    assert reference.latest_image_index([5, *row]) == [-1, *[0] * 5, *[1] * 5]


def test_a_changed_image_changes_the_tokens_after_it_and_none_before(small):
    model, rows, features = small
    before = logits_of(model, rows, features)
    # The second image of the first row is another one.
    other = window_features([digits.load().images[k] for k in (0, 9, 2, 3)])
    second = rows[0].index(reference.IMAGE, 1)
    after = logits_of(model, rows, other)
    expected = [[place >= second for place in range(len(rows[0]))], [False] * len(rows[1])]
    assert changed_tokens(before, after) == expected


def test_gates_at_zero_change_nothing_to_the_last_bit_and_other_gates_do(small):
    model, rows, features = small
    language_model = model.language_model
    with no_grad():
        text_logits = language_model(language_model.embed(rows)).tolist()
    assert logits_of(model, rows, features) != text_logits
    for layer in model.cross_attention_layers:
        for gate in (layer.attention_gate, layer.mlp_gate):
            gate.data = [0.0] * len(gate.data)
    assert logits_of(model, rows, features) == text_logits


def test_frozen_weights_get_no_gradient_and_pass_it_on(small):
    model, rows, features = small
    frozen = model.language_model.parameters()
    reference.freeze(model.language_model)
    assert not any(name.startswith("language_model.") for name in model.parameters())
    reference.text_loss(model(rows, features), rows, [len(row) for row in rows]).backward()
    assert all(parameter.grad is None for parameter in frozen.values())
    assert all(any(value != 0 for value in parameter.grad) for parameter in model.parameters().values())


def mask_of_all_images(image_index, images, latents, original=reference.cross_attention_mask):
    """Return a mask by which every token attends to every image."""
    mask = original(image_index, images, latents)
    mask.data = [0.0] * len(mask.data)
    return mask


def test_attention_to_all_images_changes_the_first_token(small, monkeypatch):
    model, rows, features = small
    before = logits_of(model, rows, features)
    monkeypatch.setattr(reference, "cross_attention_mask", mask_of_all_images)
    assert changed_tokens(before, logits_of(model, rows, features))[0][0]


def test_run_returns_what_it_prints_and_is_deterministic(capsys):
    first, again = (reference.run(text_steps=1, steps=1, pairs=2, seed=1) for _ in range(2))
    printed = capsys.readouterr().out
    assert f"{first['accuracy']:6.1%}" in printed and "to the last bit: True" in printed
    assert first["unchanged_at_zero"] and first["frozen_unchanged"] and first["gate"] > 0
    for key in ("accuracy", "losses", "text_losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_quick_run_works_with_nothing_installed():
    done = quick_run("lessons.lesson_04_flamingo.reference")
    assert "frozen weights unchanged: True" in done.stdout and has_curve(done.stdout)
    losses = [float(line.split("loss ")[1].split()[0]) for line in done.stderr.splitlines() if "language" in line]
    assert losses[-1] < losses[0]
