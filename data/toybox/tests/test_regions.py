"""Patches and the objects that they show."""

import numpy as np
import pytest

from data.toybox.heldout import scene_at
from data.toybox.image import render_image
from data.toybox.regions import AMBIGUOUS, BACKGROUND, patch_objects, region_text
from data.toybox.scene import Scene


def test_patches_of_the_background_have_its_pixels_and_patches_of_objects_do_not():
    for number in range(50):
        scene = scene_at("train", 0, number)
        grid = patch_objects(scene, 8)
        changed = (render_image(scene, 32) != render_image(Scene((), scene.background), 32)).any(-1)
        patches = changed.reshape(8, 4, 8, 4).any((1, 3))
        object_indices = np.array(grid)
        assert not patches[object_indices == BACKGROUND].any()
        assert set(object_indices[object_indices >= 0]) == set(range(len(scene.objects)))


def test_a_patch_is_described_by_its_object():
    scene = scene_at("train", 0, 0)
    grid = patch_objects(scene, 8)
    row, column = next((r, c) for r in range(8) for c in range(8) if grid[r][c] == 0)
    first = scene.objects[0]
    text = region_text(scene, grid, row, column)
    assert text.place == f"row {row + 1} column {column + 1}:"
    assert text.description == f" {first.size} {first.texture} {first.color} {first.shape}"
    row, column = next((r, c) for r in range(8) for c in range(8) if grid[r][c] == BACKGROUND)
    assert region_text(scene, grid, row, column).description == " background"


def test_bad_grids_and_ambiguous_patches_are_refused():
    scene = scene_at("train", 0, 0)
    with pytest.raises(ValueError, match="expected a divisor of 128"):
        patch_objects(scene, 7)
    grid = patch_objects(scene, 8)
    row, column = next((r, c) for r in range(8) for c in range(8) if grid[r][c] == AMBIGUOUS)
    with pytest.raises(ValueError, match="on the border"):
        region_text(scene, grid, row, column)
