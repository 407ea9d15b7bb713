"""Images: numpy and the stdlib give equal pixels; each object lies at its place and differs from all others."""

from itertools import combinations, product

import numpy as np
import pytest

from data.toybox.batches import LABELS, batch
from data.toybox.heldout import scene_at
from data.toybox.image import render_image, render_images
from data.toybox.raster import FULL, INK, PAPER, background, corner, rasterize, size_in_pixels, sprite
from data.toybox.scene import BACKGROUNDS, COLORS, SHAPES, SIZES, TEXTURES, WORLD, Scene, SceneObject, make_scene


@pytest.mark.parametrize("size", [16, 32, 45, 96])
def test_numpy_equals_the_stdlib_pixel_for_pixel(size):
    scenes = [make_scene(0, number, objects=(1, 6)) for number in range(4)]
    images = render_images(scenes, size)
    assert images.shape == (4, size, size, 3) and images.dtype == np.uint8
    for scene, image in zip(scenes, images, strict=True):
        assert image.tobytes() == rasterize(scene, size)
        np.testing.assert_array_equal(image, render_image(scene, size))


@pytest.mark.parametrize("size", [32, 64, 50])
def test_each_object_lies_in_its_box_and_nothing_else_anywhere(size):
    for number in range(60):
        scene = make_scene(1, number, objects=(1, 6))
        image = render_image(scene, size)
        empty = render_image(Scene((), scene.background), size)
        changed = (image != empty).any(-1)
        for scene_object in scene.objects:
            left, top = corner(scene_object, size)
            width = size_in_pixels(scene_object.size, size)
            assert changed[top : top + width, left : left + width].sum() > width * width // 8
            changed[top : top + width, left : left + width] = False
            # Within a pixel of where the scene says.
            assert abs((left + width / 2) / size - scene_object.x / WORLD) * size <= 1.5
        assert not changed.any()


def one(shape: str, color: str, size: str, texture: str) -> Scene:
    return Scene((SceneObject(shape, color, size, texture, 64, 64),), 0)


@pytest.mark.parametrize("size", [32, 64])
def test_any_two_rendered_objects_differ(size):
    """The 512 appearances of an object at one place: any two images differ visibly."""
    kinds = list(product(SHAPES, COLORS, SIZES, TEXTURES))
    images = render_images([one(*kind) for kind in kinds], size).reshape(len(kinds), -1).astype(np.float32)
    squares = (images**2).sum(1)
    apart = squares[:, None] + squares[None] - 2 * images @ images.T
    np.fill_diagonal(apart, np.inf)
    closest = np.unravel_index(apart.argmin(), apart.shape)
    # As much as four pixels that differ by 60 of 255 in all three channels.
    assert apart.min() > 4 * 3 * 60**2, (kinds[closest[0]], kinds[closest[1]], apart.min())


@pytest.mark.parametrize("width", [7, 11, 14, 22])
def test_sprites_touch_their_box_and_the_symmetric_ones_are(width):
    for shape in SHAPES:
        keep = np.array(sprite(shape, "black", "plain", width).keep).reshape(width, width)
        assert keep.min() == 0 and keep.max() <= FULL
        inset = width // 11 if shape == "square" else 1
        covered = np.nonzero(keep < FULL)
        assert covered[0].min() <= inset and covered[0].max() >= width - 1 - max(inset, width // 8)
        assert covered[1].min() <= max(inset, width // 10)
        if shape != "moon":
            np.testing.assert_array_equal(keep, keep[:, ::-1])
        if shape in ("circle", "square", "diamond", "cross"):
            np.testing.assert_array_equal(keep, keep.T)


def test_a_large_plain_object_shows_its_ink_and_a_hollow_one_its_paper():
    for color in COLORS:
        assert tuple(render_image(one("circle", color, "large", "plain"), 64)[32, 32]) == INK[color]
        hollow = render_image(one("circle", color, "large", "hollow"), 64)
        assert tuple(hollow[32, 32]) == tuple(render_image(Scene((), 0), 64)[32, 32])
        assert (hollow == np.array(INK[color])).all(-1).any()


def test_stripes_are_horizontal_and_dots_are_not():
    striped, dotted = (
        render_image(one("square", "blue", "large", texture), 64)[26:38, 26:38] for texture in TEXTURES[1:3]
    )
    assert (striped == striped[:, :1]).all() and not (striped == striped[:1]).all()
    assert not (dotted == dotted[:, :1]).all() and not (dotted == dotted[:1]).all()


def linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB in [0, 1] → CIE L*a*b* (D65), in which equal distances look about equally far apart."""
    xyz = rgb @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    t = xyz / np.array([0.95047, 1, 1.08883])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


# Linear RGB as perceived with three types of color blindness
# (Machado, Oliveira, Fernandes 2009, doi:10.1109/TVCG.2009.113).
COLOR_VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_the_colors_are_distinguishable_with_every_color_vision(vision):
    def perceived(srgb):
        return lab(np.clip(linear(np.array(srgb) / 255) @ np.array(COLOR_VISION[vision]).T, 0, 1))

    # A difference of 2.3 is just noticeable.
    for a, b in combinations(COLORS, 2):
        assert np.linalg.norm(perceived(INK[a]) - perceived(INK[b])) > 24, (vision, a, b)
    for color in COLORS:
        assert np.linalg.norm(perceived(INK[color]) - perceived(PAPER), axis=-1).min() > 24, (
            vision,
            color,
            "on paper",
        )


def test_backgrounds_differ_and_darken_downwards():
    backgrounds = {background(number, 32) for number in range(BACKGROUNDS)}
    assert len(backgrounds) == BACKGROUNDS
    image = np.frombuffer(background(0, 32), np.uint8).reshape(32, 32, 3)
    assert (image[0] > image[-1]).all() and (image == image[:, :1]).all()


def test_an_image_that_is_too_small_is_refused():
    for draw in (render_image, rasterize):
        with pytest.raises(ValueError, match="image of 15 pixels: expected at least 16"):
            draw(make_scene(0, 0), 15)


def test_a_batch_holds_the_scenes_their_images_and_their_labels():
    made = batch("train", 3, 10, 30, size=32, objects=(1, 4))
    assert made.images.shape == (20, 32, 32, 3)
    for row, scene in enumerate(made.scenes):
        assert scene == scene_at("train", 3, 10 + row, (1, 4))
        np.testing.assert_array_equal(made.images[row], render_image(scene, 32))
        for name, values in LABELS.items():
            expected = [values.index(getattr(scene_object, name)) for scene_object in scene.objects]
            assert made.labels[name][row].tolist() == expected + [-1] * (4 - len(expected))
    with pytest.raises(ValueError, match="expected last above first"):
        batch("train", 0, 5, 5)
