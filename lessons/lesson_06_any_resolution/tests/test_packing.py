"""Patches, token dropping, bin packing and the batch: their definitions, limits and errors."""

from random import Random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_01_vit.model import unpatchify
from lessons.lesson_06_any_resolution.model import (
    ImagePatches,
    assign_rows,
    budget_grids,
    drop_tokens,
    pack,
    packing_efficiency,
    pad,
    sample_drop_rates,
)
from lessons.lesson_06_any_resolution.model.packing import STRATEGIES
from lessons.lesson_06_any_resolution.model.positions import resize_grid, resize_matrix


def image_of(rows, columns, side=2):
    return ImagePatches.from_image(torch.randn(3, rows * side, columns * side), side)


# ── Patches and token dropping ────────────────────────────────────────────────────────────────────────────────────────


def test_patches_and_coordinates_restore_the_image():
    image = torch.randn(3, 4, 10)
    patches = ImagePatches.from_image(image, 2)
    assert patches.grid == (2, 5) and len(patches) == 10
    assert patches.coordinates.tolist() == [[row, column] for row in range(2) for column in range(5)]
    assert torch.equal(unpatchify(patches.patches[None], (2, 5), 2)[0], image)


def test_an_image_that_does_not_divide_and_coordinates_outside_are_refused():
    with pytest.raises(ValueError, match="5×4 does not divide into patches of 2"):
        ImagePatches.from_image(torch.randn(3, 5, 4), 2)
    with pytest.raises(ValueError, match="0×4 does not divide"):
        ImagePatches.from_image(torch.randn(3, 0, 4), 2)
    with pytest.raises(ValueError, match="outside the grid of 2×2"):
        ImagePatches(torch.randn(1, 12), torch.tensor([[0, 2]]), (2, 2))


def test_dropping_keeps_patches_with_their_coordinates():
    image = image_of(4, 5)
    fewer = drop_tokens(image, 0.3, torch.Generator().manual_seed(0))
    assert len(fewer) == 14 and fewer.grid == (4, 5)
    index = fewer.coordinates @ torch.tensor([5, 1])
    assert (index.diff() > 0).all()
    assert torch.equal(image.patches[index], fewer.patches)
    again = drop_tokens(image, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(again.coordinates, fewer.coordinates)
    assert len(drop_tokens(image, 0.0)) == 20 and len(drop_tokens(image, 0.999)) == 1


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_an_impossible_drop_rate_is_refused(rate):
    with pytest.raises(ValueError, match="expected a fraction of the tokens"):
        drop_tokens(image_of(2, 2), rate)


def test_drop_rates_have_their_mean_and_standard_deviation():
    rates = torch.tensor(sample_drop_rates(20_000, 0.5, 0.2, Random(0)))
    assert abs(rates.mean() - 0.5) < 0.01 and abs(rates.std() - 0.2) < 0.01
    assert rates.min() >= 0 and rates.max() < 1
    assert sample_drop_rates(3, 0.5, 0.0, Random(0)) == [0.5] * 3
    assert sample_drop_rates(2, 0.0, 0.0, Random(0)) == [0.0] * 2
    for mean, std in ((0.5, 0.5), (0.0, 0.1), (1.0, 0.0), (-0.1, 0.0)):
        with pytest.raises(ValueError, match="expected a mean between 0 and 1"):
            sample_drop_rates(3, mean, std, Random(0))


# ── Bin packing ───────────────────────────────────────────────────────────────────────────────────────────────────────

LENGTHS = [5, 7, 5, 2, 4, 2, 5]


def test_the_three_strategies_on_an_example():
    assert assign_rows(LENGTHS, 10, "first-fit") == [[0, 2], [1, 3], [4, 5], [6]]
    assert assign_rows(LENGTHS, 10, "first-fit-decreasing") == [[1, 3], [0, 2], [6, 4], [5]]
    assert assign_rows([6, 3, 5, 4, 2], 9, "best-fit-decreasing") == [[0, 1], [2, 3], [4]]
    # 2 fits into both rows; best fit prefers the fuller one.
    assert assign_rows([5, 6, 2], 8, "first-fit-decreasing") == [[1, 2], [0]]
    assert assign_rows([5, 6, 4, 2], 9, "best-fit-decreasing") == [[1, 3], [0, 2]]
    assert assign_rows([6, 7, 2, 1], 9, "best-fit-decreasing") == [[1, 2], [0, 3]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_image_is_in_one_row_and_no_row_overflows(strategy):
    random = Random(0)
    for _ in range(50):
        lengths = [random.randint(1, 40) for _ in range(random.randint(1, 60))]
        rows = assign_rows(lengths, 40, strategy)
        assert sorted(image for row in rows for image in row) == list(range(len(lengths)))
        assert all(0 < sum(lengths[image] for image in row) <= 40 for row in rows)
        # Greedy: an image starts a row only when it fits into no earlier one.
        filled = [sum(lengths[image] for image in row) for row in rows]
        assert all(filled[i] + filled[j] > 40 for j in range(len(rows)) for i in range(j))


def test_sorted_images_pack_better_than_images_in_their_order():
    """Aspect ratios and sizes as photographs have them: the rows of a long batch are nearly full."""
    random = np.random.default_rng(0)
    sides = torch.tensor(np.exp(random.normal(5.9, 0.4, (600, 2))).astype(int))
    lengths = budget_grids(sides, 16, 256).prod(dim=1)
    lengths = (lengths * torch.tensor(random.uniform(0.3, 1.0, 600))).int().clamp(min=1).tolist()
    efficiency = {
        strategy: packing_efficiency(lengths, len(assign_rows(lengths, 1024, strategy)), 1024)
        for strategy in STRATEGIES
    }
    assert efficiency["first-fit"] > 0.95 and efficiency["first-fit-decreasing"] >= efficiency["first-fit"]
    padded = packing_efficiency(lengths, len(lengths), max(lengths))
    assert padded < 0.7 < 0.98 < efficiency["best-fit-decreasing"]


def test_the_efficiency_of_a_batch_is_that_of_its_rows():
    batch = pack([image_of(2, 3), image_of(1, 4), image_of(3, 3)], 12)
    assert batch.efficiency == pytest.approx(packing_efficiency([6, 4, 9], len(batch.patches), 12))


@pytest.mark.parametrize("build", [lambda images: pack(images, 8), lambda images: pad(images, 8)])
def test_images_that_do_not_fit_into_a_row_are_named(build):
    with pytest.raises(ValueError, match="image 1 has 9 tokens, and a row holds 1 to 8"):
        build([image_of(2, 2), image_of(3, 3)])
    empty = ImagePatches(torch.empty(0, 12), torch.empty(0, 2, dtype=torch.long), (0, 3))
    with pytest.raises(ValueError, match="image 0 has 0 tokens"):
        build([empty])
    with pytest.raises(ValueError, match="at least one image, got none"):
        build([])


def test_another_strategy_is_refused():
    with pytest.raises(ValueError, match="strategy is 'worst-fit', expected one of first-fit"):
        assign_rows([1], 4, "worst-fit")


# ── The batch ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_packed_batch_holds_every_patch_once_in_its_place():
    images = [image_of(2, 3), image_of(1, 4), image_of(3, 3), image_of(1, 1)]
    batch = pack(images, 12)
    assert len(batch) == 4 and batch.grids.tolist() == [[2, 3], [1, 4], [3, 3], [1, 1]]
    assert batch.places.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
    assert batch.segments.tolist() == [[0] * 9 + [1] + [-1] * 2, [0] * 6 + [1] * 4 + [-1] * 2]
    assert batch.image_index.tolist() == [[2] * 9 + [3] + [-1] * 2, [0] * 6 + [1] * 4 + [-1] * 2]
    for image, patches, coordinates in zip(
        images, batch.split(batch.patches), batch.split(batch.coordinates.float()), strict=True
    ):
        assert torch.equal(patches, image.patches) and torch.equal(coordinates.long(), image.coordinates)
    assert (batch.patches[batch.segments < 0] == 0).all()
    visible = batch.mask.visible(12, 12)
    assert visible[0].sum() == 81 + 1 and visible[1].sum() == 36 + 16


def test_a_padded_batch_has_one_image_per_row():
    batch = pad([image_of(2, 3), image_of(1, 4)])
    assert batch.segments.tolist() == [[0] * 6, [0] * 4 + [-1] * 2]
    assert batch.places.tolist() == [[0, 0], [1, 0]] and batch.image_index.tolist() == [[0] * 6, [1] * 4 + [-1] * 2]
    assert pad([image_of(2, 2)], 9).patches.shape == (1, 9, 12)


def test_a_row_may_be_full_of_images_of_one_token():
    batch = pack([image_of(1, 1) for _ in range(6)], 3)
    assert batch.segments.tolist() == [[0, 1, 2]] * 2 and batch.image_index.tolist() == [[0, 1, 2], [3, 4, 5]]


# ── Interpolation of the learned grid ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("grid", [(9, 2), (2, 9), (1, 9), (7, 7), (3, 5), (20, 3), (6, 6), (1, 1)])
def test_interpolation_equals_that_of_pytorch(grid):
    positions = torch.randn(36, 5)
    image = positions.T.reshape(1, 5, 6, 6)
    expected = F.interpolate(image, size=grid, mode="bilinear", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(resize_grid(positions, grid), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("rows", [1, 4, 9, 20])
def test_a_grid_of_one_column_is_the_transpose_of_one_row(rows):
    """PyTorch's own filter fails here: this is why the weights are written out."""
    positions = torch.randn(36, 5)
    transposed = positions.unflatten(0, (6, 6)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(resize_grid(positions, (rows, 1)), resize_grid(transposed, (1, rows)))


def test_interpolation_weights_are_local_and_sum_to_one():
    for old, new in ((6, 6), (16, 5), (5, 16), (7, 1), (1, 7)):
        weights = resize_matrix(old, new)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(new, dtype=torch.float64))
        assert (weights >= 0).all() and ((weights > 0).sum(dim=1) <= 2 * max(old / new, 1) + 1).all()
    assert torch.equal(resize_matrix(6, 6), torch.eye(6, dtype=torch.float64))


def test_positions_in_half_precision_are_interpolated_in_float32():
    positions = torch.randn(16, 8).bfloat16()
    resized = resize_grid(positions, (3, 7))
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, resize_grid(positions.float(), (3, 7)).bfloat16())
