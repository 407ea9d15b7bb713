"""Frames of clips as NumPy arrays: the pixels of `data.toybox.video.frames`, computed much faster."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from data.toybox import raster
from data.toybox.scene import Scene
from data.toybox.video.clip import Clip, Seconds, scene_at_time


@cache
def _sprite(shape: str, color: str, texture: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sprite's keep [width, width, 1] and ink [width, width, 3] arrays."""
    sprite = raster.sprite(shape, color, texture, width)
    keep = np.array(sprite.keep, np.uint16).reshape(width, width, 1)
    return keep, np.array(sprite.ink, np.uint16).reshape(width, width, 3)


@cache
def _background(number: int, size: int) -> np.ndarray:
    return np.frombuffer(raster.background(number, size), np.uint8).reshape(size, size, 3)


def render_frame(scene: Scene, size: int = 64) -> np.ndarray:
    """Render the scene of one time: uint8 RGB [size, size, 3]; objects are cut off at the border of the world.

    Raises ValueError when `size` is below 16.
    """
    raster.check_size(size)
    canvas = _background(scene.background, size).copy()
    for scene_object in scene.objects:
        left, top = raster.corner(scene_object, size)
        width = raster.size_in_pixels(scene_object.size, size)
        keep, ink = _sprite(scene_object.shape, scene_object.color, scene_object.texture, width)
        rows, columns = slice(max(0, -top), min(width, size - top)), slice(max(0, -left), min(width, size - left))
        region = canvas[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
        region[:] = (keep[rows, columns] * region + ink[rows, columns]) >> 4
    return canvas


def render_frames(clip: Clip, times: Sequence[Seconds], size: int = 64) -> np.ndarray:
    """Render a clip at times in seconds: uint8 RGB [frames, size, size, 3].

    Equal scenes, as in a quiet phase, are rendered once. Raises ValueError for times outside the clip.
    """
    frames = np.empty((len(times), size, size, 3), np.uint8)
    previous = None
    for index, time in enumerate(times):
        scene = scene_at_time(clip, time)
        frames[index] = frames[index - 1] if scene == previous else render_frame(scene, size)
        previous = scene
    return frames
