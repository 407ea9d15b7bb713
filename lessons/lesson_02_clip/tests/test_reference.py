"""The pure-Python CLIP: its losses, its equality with PyTorch, its training."""

import json
import math
import re
from random import Random

import pytest

from data.toybox.heldout import is_held_out, mentions_held_out
from lessons.lesson_02_clip import reference
from lessons.lesson_02_clip.experiment.exact import manual_gradient_difference, reference_differences
from shared.stdlib.creation import normal
from shared.stdlib.tensor import Tensor
from shared.testing import has_curve, quick_run


@pytest.mark.parametrize("seed", [0, 1])
def test_manual_gradients_equal_those_of_the_engine_and_of_pytorch(seed):
    assert manual_gradient_difference(seed) < 1e-12


def test_same_weights_give_the_same_vectors_and_gradients_as_pytorch():
    differences = reference_differences(3)
    assert differences["reference_difference"] < 1e-10 and differences["reference_gradient_difference"] < 1e-10


def broken_cross_entropy(change):
    original = reference.cross_entropy

    def broken(logits, targets):
        return change(original, logits, list(targets))

    return broken


BREAKS = {
    "labels shifted": lambda loss, logits, labels: loss(logits, labels[1:] + labels[:1]),
    "sign of the temperature": lambda loss, logits, labels: loss(-logits, labels),
    "wrong axis": lambda loss, logits, labels: loss(logits.transpose(), labels) * 2.0 - loss(logits, labels),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_loss_is_detected(name, monkeypatch):
    monkeypatch.setattr(reference, "cross_entropy", broken_cross_entropy(BREAKS[name]))
    if name == "wrong axis":  # the sum of both directions is symmetric; the error shows in a single direction
        images, texts, scale = normal((3, 2), 1.0, Random(0)), normal((3, 2), 1.0, Random(1)), Tensor([0.0], ())
        one_way = reference.cross_entropy(images @ texts.transpose() * scale.exp(), range(3)).item()
        monkeypatch.undo()
        assert one_way != pytest.approx(
            reference.cross_entropy(images @ texts.transpose() * scale.exp(), range(3)).item()
        )
    else:
        assert reference_differences(3)["reference_gradient_difference"] > 1e-3


@pytest.mark.parametrize(
    ("part", "replacement"),
    [
        ("unit_vectors", lambda x: x),
        ("patchify", lambda images: reference.Tensor([0.5] * (len(images) * 9 * 192), (len(images), 9, 192))),
    ],
)
def test_a_broken_encoder_is_detected(part, replacement, monkeypatch):
    monkeypatch.setattr(reference, part, replacement)
    assert reference_differences(3)["reference_difference"] > 1e-2


@pytest.mark.parametrize("value", [-700.0, -1.0, 0.0, 3.0, 700.0])
def test_softplus_does_not_overflow(value):
    x = Tensor([value], (), True)
    soft = reference.softplus(x)
    soft.backward()
    assert soft.item() == pytest.approx(max(value, 0.0), abs=0.7) and 0.0 <= x.grad[0] <= 1.0


# ── Images and captions ───────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_have_no_duplicate_captions_and_leave_nothing_out():
    scenes = [reference.scene_at("train", 0, number, (1, 1)) for number in range(200)]
    batches = reference.unique_batches(scenes, 12, Random(0))
    distinct = [len({reference.scene_caption(scene) for scene in batch}) for batch in batches]
    assert distinct == [reference.BATCH] * 12
    assert len({id(scene) for batch in batches for scene in batch}) > 180


def test_no_training_scene_or_caption_contains_a_held_out_combination():
    scenes = [reference.scene_at("train", 0, number, (1, 1)) for number in range(300)]
    captions = [reference.scene_caption(scene) for scene in scenes]
    assert not any(map(is_held_out, scenes)) and not any(map(mentions_held_out, captions))
    assert all(is_held_out(reference.scene_at("test", 0, number, (1, 1))) for number in range(50))


def test_the_nine_patches_are_the_nine_places():
    scenes = [reference.scene_at("train", 0, number, (1, 1)) for number in range(99)]
    # Well inside its ninth of the image, so that the object does not reach into another patch.
    scene = next(scene for scene in scenes if scene.objects[0].place == "right" and scene.objects[0].x > 98)
    patches = reference.patchify([reference.scene_pixels(scene)])
    assert patches.shape == (1, 9, 192)
    brightness = [sum(patch) for patch in patches.tolist()[0]]
    assert brightness.index(min(brightness)) == 5


def test_captions_are_padded_with_the_empty_word():
    words = {"a", "an", "object", "on", "the", "at", "in", "top", "bottom", "left", "right", "middle"}
    assert reference.LONGEST == 7 and len(reference.VOCABULARY) == 1 + len(words) + 8
    row = reference.tokenize("a red object on the left")
    assert len(row) == 7 and row[-1] == 0 and 0 not in row[:-1]


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_returns_what_it_prints_and_is_deterministic(capsys):
    first, again, other = (reference.run(steps=2, seed=1, loss=loss) for loss in ("info-nce", "info-nce", "sigmoid"))
    output = capsys.readouterr().out
    assert f"both correct       {first['both']:6.1%}" in output and f"{first['parameters']:,} parameters" in output
    for key in ("color", "place", "both", "retrieval", "losses"):
        assert first[key] == again[key]
    assert first["losses"] != other["losses"]
    json.dumps(first)


def test_quick_run_learns_with_nothing_installed():
    """Without site-packages. The few steps are enough for a loss below that of a random choice among a batch."""
    finished = quick_run("lessons.lesson_02_clip.reference")
    first, last = (float(number) for number in re.search(r"([\d.]+) -> ([\d.]+)", finished.stdout).groups())
    assert first > 3.0 and last < math.log(reference.BATCH) - 0.1
    assert "both correct" in finished.stdout and has_curve(finished.stdout) and len(finished.stderr.splitlines()) == 5
