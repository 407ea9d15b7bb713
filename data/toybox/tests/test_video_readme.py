"""The README of clips: its example, figure and timeline are right.

`python -m data.toybox.tests.test_video_readme` draws the figure again.
"""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.toybox.video.arrays import render_frames
from data.toybox.video.clip import scene_at_time
from data.toybox.video.frames import frame_times
from data.toybox.video.generation import clip_at
from data.toybox.video.language import sentence, timeline
from data.toybox.video.question_types import QUESTION_TYPES

FOLDER = Path(__file__).parents[1]
PAGE = (FOLDER / "video" / "README.md").read_text(encoding="utf-8")
FIGURE = FOLDER / "figures" / "clip.png"
CLIP = clip_at("train", 0, 53)
RATE, SIDE, GAP, ROW = 2, 96, 8, 24
BAR, TEXT = (70, 100, 150), (30, 30, 30)


def strip() -> np.ndarray:
    """Return the frames side by side: uint8 [SIDE, width, 3]."""
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    columns = [part for frame in render_frames(CLIP, frame_times(CLIP.seconds, RATE), SIDE) for part in (frame, gap)]
    return np.concatenate(columns[:-1], axis=1)


def column(seconds: Fraction) -> int:
    """Return the pixel column of a time; a frame's time is at its center."""
    return int(seconds * RATE * (SIDE + GAP)) + SIDE // 2


def figure() -> Image.Image:
    """Return the frames, the times below them, and one row per event."""
    frames, font = strip(), ImageFont.load_default(14)
    image = Image.new("RGB", (frames.shape[1], SIDE + ROW * (len(CLIP.events) + 1) + 6), "white")
    image.paste(Image.fromarray(frames))
    draw = ImageDraw.Draw(image)
    for time in frame_times(CLIP.seconds, RATE):
        draw.text((column(time), SIDE + 12), f"{float(time):g} s", fill=TEXT, font=font, anchor="mm")
    for row, event in enumerate(CLIP.events):
        middle = SIDE + ROW * (row + 1) + ROW // 2
        start, end = column(Fraction(event.start, 1000)), column(Fraction(event.end, 1000))
        draw.rounded_rectangle((start - 4, middle - 6, end + 4, middle + 6), 4, fill=BAR)
        at_left = start > image.width // 2
        position, anchor = ((start - 12, middle), "rm") if at_left else ((end + 12, middle), "lm")
        draw.text(position, sentence(CLIP, event), fill=TEXT, font=font, anchor=anchor)
    return image


def test_the_figure_shows_the_named_clip_and_its_timeline():
    pixels = np.asarray(Image.open(FIGURE).convert("RGB"))
    assert pixels.shape == np.asarray(figure()).shape
    np.testing.assert_array_equal(pixels[:SIDE], strip())
    bars = (pixels[SIDE + ROW :] == BAR).all(-1)
    assert [bars[ROW * row : ROW * (row + 1)].any() for row in range(len(CLIP.events))] == [True] * len(CLIP.events)
    assert timeline(CLIP) in PAGE


def test_the_example_prints_what_its_comments_show(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)[:1]
    namespace: dict = {}
    exec(code, namespace)
    text, question = capsys.readouterr().out.split("\n", 1)
    assert text.startswith("the star enters at the bottom while") and "?" in question
    assert namespace["frames"].shape == (9, 64, 64, 3)
    assert namespace["state"] == scene_at_time(CLIP, 2.5)


def test_the_table_lists_every_question_type():
    assert [name for name in QUESTION_TYPES if f"| {name} |" not in PAGE] == []


if __name__ == "__main__":
    figure().save(FIGURE, optimize=True)
