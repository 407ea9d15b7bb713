"""The training scenes hold every combination; batches are repeatable; a small judge learns, and is saved exactly."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch

from data.toybox.heldout import HELD_OUT, is_held_out
from data.toybox.scene import COLORS, SHAPES
from data.toybox.tensors import render_tensors
from shared.errors import CourseError
from shared.judge.checkpoint import CHECKPOINT
from shared.judge.model import Judge, JudgeConfig
from shared.judge.pixels import to_judge_pixels
from shared.judge.training import JudgeRecipe, augment, judge_batch, judge_loss, training_scene

RECIPE = JudgeRecipe(batch_size=32)
SMALL = JudgeConfig(8, 8, 16, 16)


def test_the_training_scenes_hold_every_combination_about_equally_often():
    scenes = [training_scene(0, number) for number in range(1500)]
    pairs = Counter((each.color, each.shape) for scene in scenes for each in scene.objects)
    assert set(pairs) == set(product(COLORS, SHAPES))
    expected = pairs.total() / 64
    assert all(expected / 2 < count < 2 * expected for count in pairs.values())
    assert sum(pairs[pair] for pair in HELD_OUT) == pytest.approx(pairs.total() / 8, rel=0.2)
    assert {len(scene.objects) for scene in scenes} == set(range(7))


def test_objects_of_a_training_scene_are_independent():
    """In the course's scenes, two objects share their shape far more often than one time in eight."""
    scenes = [scene for number in range(2000) if len((scene := training_scene(0, number)).objects) > 1]
    equal = [scene.objects[0].shape == scene.objects[1].shape for scene in scenes]
    assert sum(equal) / len(equal) == pytest.approx(1 / 8, abs=0.03)


def test_a_batch_is_a_pure_function_of_its_index():
    pixels, labels = judge_batch(RECIPE, 5)
    again, labels_again = judge_batch(RECIPE, 5)
    assert torch.equal(pixels, again) and torch.equal(labels.center, labels_again.center)
    assert pixels.shape == (32, 3, 64, 64) and 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    other, _ = judge_batch(RECIPE, 6)
    assert not torch.equal(pixels, other)


def test_augmentation_changes_images_mildly_and_without_strength_not_at_all():
    images = render_tensors([training_scene(0, number) for number in range(1, 9)], 32).float() / 255
    generator = torch.Generator().manual_seed(0)
    changed = augment(images, RECIPE, generator)
    assert 0.01 < (changed - images).square().mean().sqrt() < 0.12
    unchanged = replace(RECIPE, blur=0.0, noise=0.0, color_gain=0.0, color_shift=0.0)
    torch.testing.assert_close(augment(images, unchanged, generator), images)


def test_a_small_judge_learns_one_batch():
    model, (pixels, labels) = Judge(SMALL), judge_batch(JudgeRecipe(batch_size=8), 1)
    before, _ = judge_loss(model, (pixels, labels))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss, metrics = judge_loss(model, (pixels, labels))
        loss.backward()
        optimizer.step()
    assert loss < before / 2
    assert metrics["presence"] > 0.9 and metrics["color"] > 0.6


def test_a_judge_is_saved_and_loaded_exactly(tmp_path):
    model, pixels = Judge(SMALL), to_judge_pixels(torch.rand(3, 3, 32, 32))
    model(pixels)  # in training mode: changes the running statistics of the norms
    model.eval().save_pretrained(tmp_path)
    loaded = Judge.from_pretrained(tmp_path)
    assert loaded.config == SMALL and not loaded.training
    for one, other in zip(model(pixels).attributes.values(), loaded(pixels).attributes.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CourseError, match="'llama'; expected toy_world_judge"):
        Judge.from_pretrained(tmp_path)


def test_every_parameter_receives_a_gradient():
    model = Judge(SMALL)
    loss, _ = judge_loss(model, judge_batch(RECIPE, 0))
    loss.backward()
    assert [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()] == []


def test_the_description_says_that_the_judge_has_seen_held_out_combinations():
    assert "held-out ones included" in CHECKPOINT.description and "never on generated images" in CHECKPOINT.description
    assert any(is_held_out(training_scene(0, number)) for number in range(1, 50))
