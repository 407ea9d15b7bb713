"""The toy world's speed on one core: scenes and images per second, against Pillow pasting the same sprites.

    python -m benchmarks.toybox

The goal is 5,000 images per second, including their scenes, so that no lesson waits for its data. The best processor
time counts. Sprites are drawn before the clock starts, on both sides.
"""

import itertools
from collections.abc import Callable

from PIL import Image

from benchmarks.report import Row, print_rows
from benchmarks.timing import time_in_turns
from data.toybox.heldout import scene_at
from data.toybox.image import render_images
from data.toybox.language import caption
from data.toybox.questions import question_at
from data.toybox.raster import background, corner, rasterize, size_in_pixels, sprite
from data.toybox.scene import Scene, stream

SIZES = (32, 64, 96)
ROUNDS = 5


def measure(count: int = 1000, rounds: int = ROUNDS) -> list[Row]:
    """Return rows in items per second. Scenes have one to five objects; every round makes `count` new ones."""
    rows = []
    for size in SIZES:
        functions = {
            "course": lambda numbers, size=size: render_images(_scenes(numbers), size),
            "Pillow": lambda numbers, size=size: [_paste(scene, size) for scene in _scenes(numbers)],
        }
        rates = _measure_rates(functions, count, rounds)
        name = f"scenes with images of {size} × {size}, against pasting with Pillow"
        rows.append(Row.of_rate(name, rates["course"], rates["Pillow"], "per s"))
    functions = {
        "scenes alone": _scenes,
        "scenes with captions": lambda numbers: [caption(s, "places", stream(0, 0)) for s in _scenes(numbers)],
        "scenes with questions": lambda numbers: [question_at("train", 0, number) for number in numbers],
        "scenes with images of 32 × 32 by the standard library alone": lambda numbers: [
            rasterize(scene, 32) for scene in _scenes(numbers)
        ],
    }
    for name, function in functions.items():
        rates = _measure_rates({name: function}, count, rounds)
        rows.append(Row.of_rate(name, rates[name], None, "per s"))
    return rows


def _scenes(numbers: range) -> list[Scene]:
    return [scene_at("train", 0, number) for number in numbers]


def _measure_rates(functions: dict[str, Callable[[range], object]], count: int, rounds: int) -> dict[str, float]:
    """Return how many scenes per second each function makes in its best round."""

    def on_new_scenes(function: Callable[[range], object]) -> Callable[[], object]:
        starts = itertools.count(0, count)
        return lambda: function(range(start := next(starts), start + count))

    timed = {name: on_new_scenes(function) for name, function in functions.items()}
    return {name: count / timing.best for name, timing in time_in_turns(timed, rounds, warmup=1).items()}


_PILLOW_IMAGES: dict[tuple, Image.Image] = {}
_PILLOW_SPRITES: dict[tuple, tuple[Image.Image, Image.Image]] = {}


def _paste(scene: Scene, size: int) -> Image.Image:
    """Draw the same image as a user of Pillow would: prepared sprites, pasted through their masks."""
    key = (scene.background, size)
    if key not in _PILLOW_IMAGES:
        _PILLOW_IMAGES[key] = Image.frombytes("RGB", (size, size), background(*key))
    image = _PILLOW_IMAGES[key].copy()
    for scene_object in scene.objects:
        look = (scene_object.shape, scene_object.color, scene_object.texture, size_in_pixels(scene_object.size, size))
        if look not in _PILLOW_SPRITES:
            _PILLOW_SPRITES[look] = _pillow_sprite(*look)
        pixels, mask = _PILLOW_SPRITES[look]
        image.paste(pixels, corner(scene_object, size), mask)
    return image


def _pillow_sprite(shape: str, color: str, texture: str, width: int) -> tuple[Image.Image, Image.Image]:
    _, keep, ink = sprite(shape, color, texture, width)
    coverage = [16 - weight for weight in keep]
    pixels = bytes(min(255, value // max(1, coverage[index // 3])) for index, value in enumerate(ink))
    mask = bytes(value * 255 // 16 for value in coverage)
    return Image.frombytes("RGB", (width, width), pixels), Image.frombytes("L", (width, width), mask)


if __name__ == "__main__":
    print_rows(measure())
