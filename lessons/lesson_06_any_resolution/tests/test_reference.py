"""The pure-Python NaViT: resizing, packing, and training on strips of digits."""

import json
import math
from random import Random

import pytest

from lessons.lesson_06_any_resolution import reference
from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.tensor import Tensor
from shared.testing import quick_run


def numbered(height, width):
    return Tensor([float(value) for value in range(height * width)], (height, width))


def random_image(height, width, seed=0):
    random = Random(seed)
    return Tensor([random.random() for _ in range(height * width)], (height, width))


def test_patches_are_cut_in_row_major_order():
    assert reference.patchify(numbered(2, 4), 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert reference.patchify(numbered(4, 2), 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_resizing_keeps_means_and_sizes():
    image = random_image(8, 24)
    assert reference.resize(image, 8, 24).data == pytest.approx(image.data)
    assert reference.resize(Tensor([0.5] * 35, (5, 7)), 3, 11).data == pytest.approx([0.5] * 33)
    halved = reference.resize(image, 4, 12)
    assert halved.shape == (4, 12)
    assert sum(halved.data) / 48 == pytest.approx(sum(image.data) / 192, abs=0.02)


@pytest.mark.parametrize("arguments", [(0, 5, 4, 9), (5, 0, 4, 9), (5, 5, 4, 0), (5, 5, 0, 9)])
def test_an_impossible_grid_is_named(arguments):
    with pytest.raises(ValueError, match="expected at least 1 each"):
        reference.budget_grid(*arguments)


def test_strips_have_their_first_digit_as_label_and_fit_the_budget():
    data, random = digits.load(), Random(0)
    shapes = set()
    for _ in range(40):
        strip = reference.random_strip(data, random)
        assert strip.label in range(10)
        height, width = strip.image.shape
        assert height % 4 == width % 4 == 0 and height * width // 16 <= reference.BUDGET
        shapes.add(reference.shape_of(strip))
    assert shapes == {"square", "tall", "wide"}


def test_a_wide_and_a_tall_strip_hold_the_same_digits(monkeypatch):
    """Digits lie beside or below each other, upright in both directions."""
    monkeypatch.setattr(reference, "BUDGET", 8)
    monkeypatch.setattr(reference, "LARGEST_SCALE", 1.0)
    data = digits.Digits([[1] * 64, [16] * 32 + [0] * 32], [3, 5])
    images = {}
    for seed in range(40):
        strip = reference.random_strip(data, Random(seed))
        if math.prod(strip.image.shape) == 128 and strip.label == 5:
            images[reference.shape_of(strip)] = [[round(value, 12) for value in row] for row in strip.image.tolist()]
    top = [[1.0] * 8] * 4 + [[0.0] * 8] * 4
    assert images["tall"][:8] == top
    assert [row[:8] for row in images["wide"]] == top
    assert images["tall"][8:] == [row[8:] for row in images["wide"]] == [[1 / 16] * 8] * 8


def test_rows_hold_all_images_and_padding():
    batch = reference.pack([numbered(2, 4), numbered(4, 4), numbered(2, 2)], 2, 5)
    assert batch.image_index == [[1, 1, 1, 1, 2], [0, 0, -1, -1, -1]]
    assert batch.coordinates == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 0), (0, 1), (0, 0), (0, 0), (0, 0)]
    assert batch.patches.shape == (2, 5, 4) and batch.patches.tolist()[1][2:] == [[0.0] * 4] * 3
    with pytest.raises(ValueError, match="an image has 4 patches, and a row holds 3"):
        reference.pack([numbered(4, 4)], 2, 3)


def test_packed_images_give_the_logits_of_each_alone():
    model = reference.NaViT(reference.Sizes(width=8, depth=2, mlp_dim=12), Random(0))
    images = [random_image(8, 24), random_image(16, 8, 1), random_image(4, 4, 2), random_image(8, 8, 3)]
    with no_grad():
        packed = reference.logits_of(model, images, 22).tolist()
        for image, logits in zip(images, packed, strict=True):
            assert reference.logits_of(model, [image], 13).data == pytest.approx(logits, abs=1e-12)


def test_run_returns_what_it_prints_and_repeats_itself(capsys, monkeypatch):
    monkeypatch.setattr(reference, "BATCH", 3)
    first, again = (reference.run(steps=2, held_out_strips=6, seed=1) for _ in range(2))
    output = capsys.readouterr().out
    assert f"{first['parameters']:,} parameters" in output and "packed − one by one" in output
    assert first["largest_difference"] < 1e-12 and first["packed"] <= 1
    for key in ("accuracy", "baseline_accuracy", "losses"):
        assert first[key] == again[key]
    json.dumps(first)


def test_it_learns_one_batch_by_heart(monkeypatch):
    """Three strips in some steps on nothing else."""
    data, strips = digits.load(), iter(range(10**6))
    fixed = [reference.random_strip(data, Random(seed)) for seed in (0, 3, 5)]
    monkeypatch.setattr(reference, "BATCH", 3)
    monkeypatch.setattr(reference, "random_strip", lambda *_: fixed[next(strips) % 3])
    model = reference.NaViT(reference.Sizes(width=12, depth=1, mlp_dim=16), Random(0))
    losses = reference.fit(model, data, 25, Random(0))
    assert losses[-1] < 0.3 * losses[0]


def test_quick_run_works_with_nothing_installed():
    done = quick_run("lessons.lesson_06_any_resolution.reference")
    assert "NaViT, packed" in done.stdout and "padded ones" in done.stdout
