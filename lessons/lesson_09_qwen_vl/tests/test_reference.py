"""The pure-Python Qwen-VL: ids, patches, windows, and training on videos of digits."""

import json
from random import Random

import pytest

from lessons.lesson_09_qwen_vl import reference
from shared.stdlib import digits
from shared.stdlib.tensor import Tensor
from shared.testing import quick_run


def numbered(frames, height, width):
    return Tensor([float(value) for value in range(frames * height * width)], (frames, height, width))


def test_the_four_patches_of_a_token_follow_each_other():
    patches = reference.cut_into_patches(numbered(1, 4, 8), 2, 2)
    assert patches.tolist()[:4] == [[0, 1, 8, 9], [2, 3, 10, 11], [16, 17, 24, 25], [18, 19, 26, 27]]
    tokens = reference.merge_patches(patches, 2)
    assert tokens.shape == (2, 16) and tokens.tolist()[1][:4] == [4, 5, 12, 13]
    with pytest.raises(ValueError, match="a frame of 6×8 pixels does not divide into tokens of 4×4"):
        reference.cut_into_patches(numbered(1, 6, 8), 2, 2)


def test_text_restarts_after_the_largest_id():
    ids = reference.mrope_ids([2, reference.Grid(2, 1, 3, 5.0), 1])
    assert ids[:2] == [(0, 0, 0), (1, 1, 1)]
    assert ids[2:8] == [(2, 2, 2), (2, 2, 3), (2, 2, 4), (7, 2, 2), (7, 2, 3), (7, 2, 4)]
    assert ids[8] == (8, 8, 8)


def test_windows_follow_each_other():
    assert reference.window_order(2, 4, 2) == [0, 1, 4, 5, 2, 3, 6, 7]


def test_examples_ask_for_a_digit_that_they_contain():
    data = digits.Digits([[value] * 64 for value in range(10)], list(range(10)))
    random, places = Random(0), set()
    for _ in range(60):
        example = reference.random_example(data, random)
        frame, side = divmod(example.question - reference.QUESTIONS, reference.COLUMNS)
        video = Tensor(example.pixels, (reference.FRAMES, 8, 16)).tolist()
        places.add((frame, side))
        assert {round(16 * p) for row in video[frame] for p in row[8 * side : 8 * side + 8]} == {example.answer}
    assert len(places) == reference.FRAMES * reference.COLUMNS


def test_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 3)
    first, again = (reference.run(steps=2, held_out_videos=6, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['parameters']:,} parameters" in output and "(2, 2, 2)" in output
    for key in ("accuracy", "accuracy_for_another_question", "losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_it_learns_one_batch_by_heart(monkeypatch):
    """Three videos in some steps on nothing else."""
    data, count = digits.load(), iter(range(10**6))
    fixed = [reference.random_example(data, Random(seed)) for seed in (0, 3, 5)]
    monkeypatch.setattr(reference, "BATCH", 3)
    monkeypatch.setattr(reference, "random_example", lambda *_: fixed[next(count) % 3])
    losses = reference.fit(reference.QwenVL(reference.Sizes(), Random(0)), data, 25, Random(0))
    assert losses[-1] < 0.3 * losses[0]


def test_quick_run_works_with_nothing_installed():
    done = quick_run("lessons.lesson_09_qwen_vl.reference")
    assert "answers about held-out digits" in done.stdout
