"""Sizes, frames and times of videos: the published rules, and errors that name their cause."""

import __future__

import ast
import math
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as published_resize

from lessons.lesson_09_qwen_vl.model import sampling


def test_sizes_equal_the_published_rule():
    generator = random.Random(0)
    for _ in range(2000):
        height, width = (int(10 ** generator.uniform(0, 4)) for _ in range(2))
        factor = generator.randint(1, 40)
        limits = sorted(int(10 ** generator.uniform(0, 7)) for _ in range(2))
        if max(height, width) > 200 * min(height, width):
            with pytest.raises(ValueError, match="a ratio of at most 200"):
                sampling.smart_resize(height, width, factor, *limits)
            continue
        assert sampling.smart_resize(height, width, factor, *limits) == published_resize(height, width, factor, *limits)


def published_function(generation, name):
    """Return a function of a published video processor; its module cannot be imported without torchvision."""
    file = Path(transformers.__file__).parent / "models" / generation / f"video_processing_{generation}.py"
    tree = ast.parse(file.read_text())
    node = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    names = {"math": math, "np": np, "torch": torch}
    program = compile(ast.Module([node], []), str(file), "exec", flags=__future__.annotations.compiler_flag)
    exec(program, names)
    return names[name]


def test_sizes_of_videos_equal_the_published_rule():
    generator, published = random.Random(1), published_function("qwen3_vl", "smart_resize")
    for _ in range(1000):
        frames, factor, temporal = generator.randint(3, 40), generator.randint(5, 40), generator.randint(1, 3)
        height, width = generator.randint(5, 900), generator.randint(5, 900)
        limits = (generator.randint(1, 10**6), generator.randint(10**6, 10**7))
        arguments = (frames, height, width, temporal, factor, *limits)
        if max(height, width) <= 200 * min(height, width):
            assert sampling.smart_resize_video(frames, height, width, factor, limits, temporal) == published(*arguments)


def test_numbers_of_frames_equal_the_published_rule():
    generator, published = random.Random(2), published_function("qwen2_vl", "sample_frames")
    for _ in range(1000):
        total, video_fps = generator.randint(4, 5000), generator.choice([1.0, 7.5, 24.0, 29.97, 60.0])
        fps, least, most = generator.uniform(0.1, 5), 2 * generator.randint(1, 5), generator.randint(10, 800)
        limits = {"min_frames": least, "max_frames": most}
        processor = SimpleNamespace(num_frames=None, temporal_patch_size=2)
        video = SimpleNamespace(total_num_frames=total, fps=video_fps)
        expected = len(published(processor, video, fps=fps, **limits))
        # Its step of a fraction of a frame may reach one index more.
        frames = sampling.smart_nframes(total, video_fps, fps=fps, **limits)
        assert expected - 1 <= frames <= expected and frames % 2 == 0


def test_frames_equal_the_published_ones():
    published, processor = published_function("qwen3_vl", "sample_frames"), SimpleNamespace(fps=2)
    for total, frames in ((300, 20), (7, 6), (2, 2), (5, 1), (100, 100), (977, 64)):
        video = SimpleNamespace(total_num_frames=total, fps=None)
        processor.fps = None
        expected = published(processor, video, num_frames=frames)
        assert sampling.frame_indices(total, frames).tolist() == expected.tolist()


def test_times_of_frames():
    assert sampling.seconds_per_step(300, 20, 30.0) == pytest.approx(1.0)
    assert sampling.seconds_per_step(300, 10, 30.0, frames_per_patch=1) == pytest.approx(1.0)
    assert sampling.timestamps([0, 15, 30, 45], 30.0) == pytest.approx([0.25, 1.25])
    assert sampling.timestamps([0, 15, 30], 30.0) == pytest.approx([0.25, 1.0])
    assert sampling.timestamps([0, 10, 40], 10.0, 3) == pytest.approx([2.0])
    assert sampling.timestamp_text(1.25) == "<1.2 seconds>"


def test_a_budget_is_shared_among_frames():
    assert sampling.pixels_per_frame(10, 10_000, 2, (100, 5000)) == 2000
    assert sampling.pixels_per_frame(2, 10_000, 2, (100, 5000)) == 5000
    assert sampling.pixels_per_frame(1000, 10_000, 2, (100, 5000)) == 105


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("smart_resize", (0, 5, 28, 1, 9), "0×5 pixels"),
        ("smart_resize", (5, 5, 0, 1, 9), "tokens of 0"),
        ("smart_resize", (5, 5, 28, 9, 8), "at least 9 and at most 8 pixels"),
        ("smart_resize", (5, 5, 28, 0, 8), "at least 0 and"),
        ("smart_nframes", (10, 0.0), "0.0 frames per second"),
        ("smart_nframes", (10, math.nan), "nan frames per second"),
        ("smart_nframes", (1, 25.0), "a video of 1 frames does not fill a patch of 2"),
        ("frame_indices", (5, 6), "6 frames of a video of 5"),
        ("frame_indices", (5, 0), "0 frames"),
        ("smart_resize_video", (1, 5, 5, 28, (1, 9)), "1 frames do not fill"),
        ("smart_resize_video", (2, 0, 5, 28, (1, 9)), "0×5 pixels"),
        ("smart_resize_video", (2, 9000, 29, 28, (1, 9)), "a ratio of at most 200"),
    ],
)
def test_bad_input_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(sampling, function)(*arguments)
