"""The pure-Python CLIP: its losses, its equality with PyTorch, its learning."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from data.toybox.heldout import is_held_out, mentions_held_out
from lessons.lesson_02_clip import reference
from lessons.lesson_02_clip.experiment.exact import hand_difference, reference_differences
from shared.stdlib.creation import normal
from shared.stdlib.tensor import Tensor

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_by_hand_by_the_engine_and_by_pytorch_are_equal(seed):
    assert hand_difference(seed) < 1e-12


def test_same_weights_same_vectors_and_gradients_as_pytorch():
    differences = reference_differences(3)
    assert differences["reference_difference"] < 1e-10 and differences["reference_gradient_difference"] < 1e-10


def broken_cross_entropy(change):
    kept = reference.cross_entropy

    def broken(logits, targets):
        return change(kept, logits, list(targets))

    return broken


BREAKS = {
    "labels shifted": lambda loss, logits, own: loss(logits, own[1:] + own[:1]),
    "temperature's sign": lambda loss, logits, own: loss(-logits, own),
    "wrong axis": lambda loss, logits, own: loss(logits.transpose(), own) * 2.0 - loss(logits, own),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_loss_does_not_go_unnoticed(name, monkeypatch):
    monkeypatch.setattr(reference, "cross_entropy", broken_cross_entropy(BREAKS[name]))
    if name == "wrong axis":  # symmetric in itself: what is wrong shows where one direction alone is asked
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
        ("unit", lambda x: x),
        ("cut", lambda pictures: reference.Tensor([0.5] * (len(pictures) * 9 * 192), (len(pictures), 9, 192))),
    ],
)
def test_a_broken_tower_does_not_go_unnoticed(part, replacement, monkeypatch):
    monkeypatch.setattr(reference, part, replacement)
    assert reference_differences(3)["reference_difference"] > 1e-2


@pytest.mark.parametrize("value", [-700.0, -1.0, 0.0, 3.0, 700.0])
def test_softplus_is_never_too_large_for_a_number(value):
    x = Tensor([value], (), True)
    soft = reference.softplus(x)
    soft.backward()
    assert soft.item() == pytest.approx(max(value, 0.0), abs=0.7) and 0.0 <= x.grad[0] <= 1.0


# ── Pictures and captions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_batches_have_no_caption_twice_and_leave_nothing_out():
    scenes = [reference.scene_at("train", 0, number, (1, 1)) for number in range(200)]
    batches = reference.unique_batches(scenes, 12, Random(0))
    assert [len({reference.caption(scene) for scene in batch}) for batch in batches] == [reference.BATCH] * 12
    assert len({id(scene) for batch in batches for scene in batch}) > 180


def test_no_training_scene_or_caption_holds_what_is_held_out():
    scenes = [reference.scene_at("train", 0, number, (1, 1)) for number in range(300)]
    assert not any(map(is_held_out, scenes)) and not any(
        mentions_held_out(reference.caption(scene)) for scene in scenes
    )
    assert all(is_held_out(reference.scene_at("test", 0, number, (1, 1))) for number in range(50))


def test_a_picture_is_cut_into_the_nine_places():
    scenes = [reference.scene_at("train", 0, number, (1, 1)) for number in range(99)]
    # Well inside its ninth, for the eye of a patch ends there.
    scene = next(scene for scene in scenes if scene.objects[0].place == "right" and scene.objects[0].x > 98)
    patches = reference.cut([reference.look(scene)])
    assert patches.shape == (1, 9, 192)
    brightness = [sum(patch) for patch in patches.tolist()[0]]
    assert brightness.index(min(brightness)) == 5


def test_captions_are_filled_up_with_the_empty_word():
    assert (
        reference.LONGEST == 7
        and len(reference.VOCABULARY)
        == 1 + len(["a", "an", "thing", "on", "the", "at", "in", "top", "bottom", "left", "right", "middle"]) + 8
    )
    row = reference.numbers_of("a red thing on the left")
    assert len(row) == 7 and row[-1] == 0 and 0 not in row[:-1]


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_returns_what_it_prints_and_repeats_itself(capsys):
    first, again, other = (reference.run(steps=2, seed=1, loss=loss) for loss in ("info-nce", "info-nce", "sigmoid"))
    shown = capsys.readouterr().out
    assert f"both right         {first['both']:6.1%}" in shown and f"{first['parameters']:,} parameters" in shown
    for key in ("colour", "place", "both", "retrieval", "losses"):
        assert first[key] == again[key]
    assert first["losses"] != other["losses"]
    json.dumps(first)


def test_quick_run_learns_with_nothing_installed():
    """Without site-packages. In so few steps it only begins: the loss falls below that of guessing among a batch."""
    command = [sys.executable, "-S", "-m", "lessons.lesson_02_clip.reference", "--quick", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=250)
    assert done.returncode == 0, done.stderr
    first, last = (float(number) for number in re.search(r"([\d.]+) → ([\d.]+)", done.stdout).groups())
    assert first > 3.0 and last < math.log(reference.BATCH) - 0.1
    assert "both right" in done.stdout and "▁" in done.stdout and len(done.stderr.splitlines()) == 5
