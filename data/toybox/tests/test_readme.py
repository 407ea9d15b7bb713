"""The README's example, figure and split sizes are right.

`python -m data.toybox.tests.test_readme` draws the figure again.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from data.toybox.heldout import ALL_PAIRS, HELD_OUT, SEEN_PAIRS, TEST_SEED, is_held_out, scene_at
from data.toybox.image import render_images
from data.toybox.language import caption
from shared.course.lesson import load_lesson

FOLDER = Path(__file__).parents[1]
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
FIGURE = FOLDER / "figures" / "scenes.png"
SCENES = [scene_at("train", 0, number) for number in (0, 1, 7)] + [scene_at("test", TEST_SEED, 2)]
SIDE, GAP = 112, 8
LESSONS = (2, 3, 4, 5)


def figure() -> np.ndarray:
    """Return the scenes side by side: uint8 [SIDE, width, 3]."""
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    columns = [part for image in render_images(SCENES, SIDE) for part in (image, gap)]
    return np.concatenate(columns[:-1], axis=1)


def test_the_figure_and_its_caption_are_the_named_scenes():
    assert (np.asarray(Image.open(FIGURE)) == figure()).all()
    assert f'"{caption(SCENES[1], "places")}"' in PAGE
    assert [is_held_out(scene) for scene in SCENES] == [False, False, False, True]
    assert caption(SCENES[3], "places").startswith("a small plain purple triangle at the top")


def test_the_example_prints_what_its_comments_show(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    namespace: dict = {}
    exec(code, namespace)
    described, truth, question = capsys.readouterr().out.splitlines()
    assert described.startswith("a small dotted green moon at the top,") and truth == "True" and "?" in question
    assert namespace["image"].shape == (64, 64, 3) and namespace["text"].startswith("touch the ")


def test_the_split_sizes_are_those_of_the_lessons():
    assert (len(SEEN_PAIRS), len(HELD_OUT), len(ALL_PAIRS)) == (56, 8, 64)
    sizes = [
        settings["scenes"]
        for lesson in LESSONS
        for arm in load_lesson(lesson)[0].arms
        for preset, settings in arm.presets.items()
        if preset in ("cpu", "full") and "scenes" in settings
    ]
    assert f"| {min(sizes):,} to {max(sizes):,} |" in PAGE


if __name__ == "__main__":
    FIGURE.parent.mkdir(exist_ok=True)
    Image.fromarray(figure()).save(FIGURE, optimize=True)
