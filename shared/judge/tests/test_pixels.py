"""Images reach the judge unchanged where that is possible; what cannot be judged is an error that states why."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from data.toybox.image import render_images
from data.toybox.raster import corner
from data.toybox.scene import COLORS, SHAPES, SIZES, TEXTURES, Scene, SceneObject, make_scene
from data.toybox.tensors import render_tensors
from shared.judge.pixels import check_images, to_judge_pixels

SCENES = [make_scene(4, number) for number in range(3)]


def test_pixels_of_both_standard_sizes_are_kept_exactly():
    for size in (32, 64):
        images = render_tensors(SCENES, size)
        pixels = to_judge_pixels(images)
        assert pixels.shape == (3, 3, 64, 64) and pixels.dtype == torch.float32
        step = 64 // size
        for row in range(step):
            for column in range(step):
                torch.testing.assert_close(
                    pixels[:, :, row::step, column::step] * 255, images.float(), rtol=0, atol=1e-4
                )


@pytest.mark.parametrize("size", [40, 48, 96, 128])
def test_images_of_other_sizes_are_resized(size):
    pixels = to_judge_pixels(render_tensors(SCENES, size))
    assert pixels.shape == (3, 3, 64, 64) and pixels.min() >= 0 and pixels.max() <= 1
    # The same scene: resized and rendered pixels differ at edges only.
    assert (pixels - to_judge_pixels(render_tensors(SCENES, 64))).abs().mean() < 0.03


def test_bytes_and_fractions_are_the_same_image():
    images = render_tensors(SCENES, 32)
    torch.testing.assert_close(to_judge_pixels(images.double() / 255), to_judge_pixels(images))
    assert to_judge_pixels(images[:0]).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.rand(2, 32, 32, 3),
            r"shape \[2, 32, 32, 3\]; .*move the channels to axis 1: images.permute\(0, 3, 1, 2\)",
        ),
        (torch.rand(3, 32, 32), r"shape \[3, 32, 32\]; expected \[batch, 3, size, size\]"),
        (torch.rand(2, 1, 32, 32), r"shape \[2, 1, 32, 32\]; expected"),
        (torch.rand(2, 3, 32, 48), r"shape \[2, 3, 32, 48\]; expected"),
        (torch.rand(2, 3, 16, 16), "images of 16 × 16 pixels are too small; expected at least 32"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "images are torch.int64; expected torch.uint8"),
        (torch.rand(2, 3, 32, 32) * 2 - 1, r"pixels lie between -.*expected 0 to 1: rescale them .*clamp"),
        (torch.rand(2, 3, 32, 32) * 255, "pixels lie between .*expected 0 to 1"),
        (torch.full((2, 3, 32, 32), math.nan), "pixels lie between nan and nan; expected 0 to 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        to_judge_pixels(images)


def test_an_array_is_refused():
    with pytest.raises(ValueError, match=r"images are a ndarray; expected a tensor \[batch, 3, size, size\]"):
        check_images(render_images(SCENES, 32))


def closest_objects(size: int) -> tuple[float, tuple, tuple]:
    """Return the smallest Euclidean distance between the pixels of two objects at one place, and the two objects."""
    appearances = list(product(SIZES, TEXTURES, COLORS, SHAPES))
    scenes = [
        Scene((SceneObject(shape, color, object_size, texture, 64, 64),), 0)
        for object_size, texture, color, shape in appearances
    ]
    pixels = render_images(scenes, size).reshape(len(scenes), -1) / 255
    squares = (pixels**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * pixels @ pixels.T
    np.fill_diagonal(distances, np.inf)
    one, other = np.unravel_index(distances.argmin(), distances.shape)
    return math.sqrt(max(distances.min(), 0)), appearances[one], appearances[other]


@pytest.mark.parametrize("size", [24, 32, 48, 64, 96])
def test_every_attribute_can_be_decided_at_every_size_that_is_judged(size):
    assert closest_objects(size)[0] > 0.4


def test_the_page_states_what_can_be_decided():
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    distance, *closest = closest_objects(32)
    assert {each[:2] for each in closest} == {("small", "plain"), ("small", "dotted")}
    assert {each[2:] for each in closest} == {("pink", "star")}
    assert "small plain and a small dotted pink star" in page and f"differ by {distance:.2f} in" in page
    assert closest_objects(16)[0] < 1e-6
    images = render_images(
        [Scene((SceneObject("cross", "red", "small", texture, 64, 64),), 0) for texture in ("plain", "striped")], 16
    )
    assert (images[0] == images[1]).all()


@pytest.mark.parametrize("object_size", SIZES)
@pytest.mark.parametrize("size", [32, 48, 64, 96])
def test_an_objects_first_row_and_column_determine_its_place(size, object_size):
    places: dict[tuple[int, int], set[str]] = {}
    for number in range(3000):
        for scene_object in make_scene(5, number).objects:
            if scene_object.size == object_size:
                places.setdefault(corner(scene_object, size), set()).add(scene_object.place)
    assert len(places) > 200
    assert all(len(names) == 1 for names in places.values())
