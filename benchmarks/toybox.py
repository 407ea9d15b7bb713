"""The toy world's speed on one core: scenes and pictures a second, against Pillow pasting the same sprites.

    python -m benchmarks.toybox

The aim is 5,000 pictures a second, scene and all, so that no lesson waits for its data. Rounds alternate between the
two sides in one process; seconds are the process's own, and the best round counts: the machine's other work is not ours.
"""

import time
from collections.abc import Callable

from PIL import Image

from data.toybox.heldout import scene_at
from data.toybox.image import render_images
from data.toybox.language import caption
from data.toybox.questions import question_at
from data.toybox.raster import background, corner, rasterize, size_in_pixels, sprite
from data.toybox.scene import Scene, stream

SIZES = (32, 64, 96)
ROUNDS = 5


def measure(count: int = 1000, rounds: int = ROUNDS) -> list[dict]:
    """Return rows of name, ours, theirs (a second each; None without a rival), ratio (above 1 we are faster), unit.

    Scenes have one to five things. The sprites are drawn before the clock starts, on both sides.
    """
    rows = []
    for size in SIZES:
        name = f"scenes with pictures of {size} × {size}, against pasting with Pillow"
        ours, theirs = _rates(lambda first, last, size=size: render_images(_scenes(first, last), size),
                              lambda first, last, size=size: [_paste(scene, size) for scene in _scenes(first, last)],
                              count, rounds)  # fmt: skip
        rows.append(_row(name, ours, theirs))
    alone = {
        "scenes alone": lambda first, last: _scenes(first, last),
        "scenes with captions": lambda first, last: [caption(s, "places", stream(0, 0)) for s in _scenes(first, last)],
        "scenes with questions": lambda first, last: [question_at("train", 0, n) for n in range(first, last)],
        "scenes with pictures of 32 × 32 by the standard library alone": lambda first, last: [
            rasterize(scene, 32) for scene in _scenes(first, last)
        ],
    }
    return rows + [_row(name, _rates(make, None, count, rounds)[0], None) for name, make in alone.items()]


def _scenes(first: int, last: int) -> list[Scene]:
    return [scene_at("train", 0, number) for number in range(first, last)]


def _rates(ours: Callable, theirs: Callable | None, count: int, rounds: int) -> tuple[float, float | None]:
    """Return how many scenes a second each side makes in its best round; every round makes new ones."""
    best = {}
    for side in (side for side in (ours, theirs) if side):
        side(0, count)
    for number in range(1, rounds + 1):
        for side in (side for side in (ours, theirs) if side):
            start = time.process_time()
            side(number * count, (number + 1) * count)
            best[side] = max(best.get(side, 0.0), count / (time.process_time() - start))
    return best[ours], best.get(theirs)


_PASTED: dict[tuple, tuple[Image.Image, Image.Image]] = {}


def _paste(scene: Scene, size: int) -> Image.Image:
    """The same picture as a user of Pillow would make it: ready-made sprites, pasted through their masks."""
    key = (scene.background, size)
    if key not in _PASTED:
        empty = Image.frombytes("RGB", (size, size), background(*key))
        _PASTED[key] = (empty, empty)
    image = _PASTED[key][0].copy()
    for scene_object in scene.objects:
        look = (scene_object.shape, scene_object.colour, scene_object.texture, size_in_pixels(scene_object.size, size))
        if look not in _PASTED:
            _PASTED[look] = _as_pillow(*look)
        image.paste(_PASTED[look][0], corner(scene_object, size), _PASTED[look][1])
    return image


def _as_pillow(shape: str, colour: str, texture: str, width: int) -> tuple[Image.Image, Image.Image]:
    _, keep, ink = sprite(shape, colour, texture, width)
    covered = [16 - share for share in keep]
    colours = bytes(min(255, value // max(1, covered[at // 3])) for at, value in enumerate(ink))
    mask = bytes(share * 255 // 16 for share in covered)
    return Image.frombytes("RGB", (width, width), colours), Image.frombytes("L", (width, width), mask)


def _row(name: str, ours: float, theirs: float | None) -> dict:
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": theirs and ours / theirs, "unit": "a second"}


if __name__ == "__main__":
    for row in measure():
        versus = f"{row['theirs']:>10,.0f}  × {row['ratio']:.2f}" if row["theirs"] else ""
        print(f"{row['name']:<64}{row['ours']:>10,.0f}{versus}  {row['unit']}")
