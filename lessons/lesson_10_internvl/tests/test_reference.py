"""The pure-Python InternVL: positions, weights, the mixer, and training on text and images of digits."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from lessons.lesson_10_internvl import reference
from shared.stdlib import digits
from shared.stdlib.tensor import Tensor

ROOT = Path(__file__).parents[3]


def test_a_square_of_patches_becomes_one_token():
    grid = Tensor([float(value) for value in range(16)], (1, 2, 4, 2))
    assert reference.pixel_unshuffle(grid, 2).tolist() == [[[[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]]]
    with pytest.raises(ValueError, match="a grid of 2 × 4 patches does not divide into squares of 4 × 4"):
        reference.pixel_unshuffle(grid, 4)


def test_visual_tokens_move_on_by_the_step_of_their_image():
    is_visual = [False, True, True, False, True, True, True, False]
    assert reference.v2pe_positions(is_visual, [0.5, 0.25]) == [0, 0.5, 1, 2, 2.25, 2.5, 2.75, 3.75]
    assert reference.v2pe_positions([], []) == []


def test_square_averaging_by_hand():
    mask = [[True] * 4, [False, True, False, False], [False] * 4]
    assert reference.token_weights(mask) == [[0.5] * 4, [0, 1, 0, 0], [0] * 4]
    assert reference.token_weights(mask, 1.0)[0] == [0.25] * 4


def test_the_mixture_has_the_fractions_of_the_tokens():
    assert reference.document_probabilities([1, 3], [100, 10]) == pytest.approx([1 / 31, 30 / 31])
    lengths = [[90, 110], [9, 11, 10]]
    tokens = [0, 0]
    for corpus, document in islice(reference.mix(lengths, [1, 3], 0), 20_000):
        tokens[corpus] += lengths[corpus][document]
    assert tokens[0] / sum(tokens) == pytest.approx(0.25, abs=0.02)


def test_examples():
    random = Random(0)
    counting = reference.counting_example(random)
    assert counting.text[0] == reference.COUNT and not counting.images
    assert all((after - before) % 10 == 1 for before, after in zip(counting.text[1:], counting.text[2:], strict=False))
    data = digits.Digits([[value] * 64 for value in range(10)], list(range(10)))
    reading = reference.reading_example(data, random, 3)
    assert reading.text[0] == reference.READ
    assert [round(16 * image[5]) for image in reading.images] == reading.text[1:]


def test_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 3)
    first, again = (reference.run(steps=4, held_out_examples=5, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['parameters']:,} parameters" in output and "0.25, 0.5, 0.75, 1.75" in output
    for key in ("reading", "counting", "losses", "token_fraction_of_text"):
        assert first[key] == again[key]
    json.dumps(first)


def test_it_learns_one_batch_by_heart(monkeypatch):
    """Three examples of two images, and nothing else."""
    data, count = digits.load(), iter(range(10**6))
    fixed = [reference.reading_example(data, Random(seed)) for seed in (0, 3, 5)]
    monkeypatch.setattr(reference, "BATCH", 3)
    monkeypatch.setattr(reference, "TOKEN_FRACTIONS", (0.0, 1.0))
    monkeypatch.setattr(reference, "reading_example", lambda *_: fixed[next(count) % 3])
    losses, tokens = reference.fit(reference.InternVL(reference.Sizes(), Random(0)), data, 25, Random(0))
    assert losses[-1] < 0.3 * losses[0] and tokens[0] == 0


def test_quick_run_works_with_nothing_installed():
    command = [sys.executable, "-S", "-m", "lessons.lesson_10_internvl.reference", "--quick", "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "digits read from 2 held-out images" in done.stdout
