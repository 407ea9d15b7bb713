"""Scenes as numpy images: the sprites of `raster` composed by numpy; the same pixels, much faster."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from data.toybox import raster
from data.toybox.scene import WIDTH, Scene


@cache
def _sprite(shape: str, color: str, texture: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sprite's keep and ink arrays [width, 3 · width]; pixels and channels share an axis for speed."""
    sprite = raster.sprite(shape, color, texture, width)
    keep = np.array(sprite.keep, np.uint16).repeat(3).reshape(width, 3 * width)
    return keep, np.array(sprite.ink, np.uint16).reshape(width, 3 * width)


@cache
def _background(number: int, size: int) -> np.ndarray:
    return np.frombuffer(raster.background(number, size), np.uint8).reshape(size, 3 * size)


def render_image(scene: Scene, size: int = 64) -> np.ndarray:
    """Render a scene: uint8 RGB [size, size, 3].

    Raises ValueError when `size` is below 16.
    """
    return render_images([scene], size)[0]


def render_images(scenes: Sequence[Scene], size: int = 64) -> np.ndarray:
    """Render several scenes: uint8 RGB [scenes, size, size, 3].

    Raises ValueError when `size` is below 16.
    """
    raster.check_size(size)
    canvases = np.empty((len(scenes), size, 3 * size), np.uint8)
    width_of = {name: raster.size_in_pixels(name, size) for name in WIDTH}
    for canvas, scene in zip(canvases, scenes, strict=True):
        canvas[:] = _background(scene.background, size)
        for scene_object in scene.objects:
            left, top = raster.corner(scene_object, size)
            width = width_of[scene_object.size]
            keep, ink = _sprite(scene_object.shape, scene_object.color, scene_object.texture, width)
            region = canvas[top : top + width, 3 * left : 3 * (left + width)]
            pixels = keep * region
            pixels += ink
            pixels >>= 4
            region[:] = pixels
    return canvases.reshape(len(scenes), size, size, 3)
