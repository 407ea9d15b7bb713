"""The exercises, each reached through `student` alone: tensors and numbers in, tensors out."""

import math

import pytest
import torch


def close(result, expected, tolerance=1e-6):
    assert result.shape == expected.shape
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 8.1: the weights of bilinear pooling ──────────────────────────────────────────────────────────────────────────────

WEIGHTS = "reference:pool_weights"


@pytest.mark.exercise("8.1")
@pytest.mark.parametrize(
    ("old", "new", "rows"),
    [
        (4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (3, 2, [[0.75, 0.25, 0], [0, 0.25, 0.75]]),
        (3, 3, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        (5, 1, [[0, 0, 1, 0, 0]]),
        (2, 4, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]),  # the ends are clamped
        (1, 2, [[1], [1]]),
        (8, 2, [[0, 0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0.5, 0.5, 0]]),  # two neighbors, however far apart
    ],
)
def test_each_value_is_a_mean_of_its_two_neighbors(student, old, new, rows):
    close(student(WEIGHTS, old=old, new=new), torch.tensor(rows, dtype=torch.float64), 1e-12)


@pytest.mark.exercise("8.1")
def test_weights_equal_those_of_pytorch(student):
    for old, new in ((27, 14), (11, 7), (6, 5), (9, 20)):
        identity = torch.eye(old, dtype=torch.float64)[None]
        expected = torch.nn.functional.interpolate(identity, new, mode="linear")[0].T
        close(student(WEIGHTS, old=old, new=new), expected, 1e-12)


@pytest.mark.exercise("8.1")
def test_weights_between_random_numbers_of_values(student):
    for old, new in torch.randint(1, 30, (6, 2)).tolist():
        values = torch.randn(2, old, dtype=torch.float64)
        expected = torch.nn.functional.interpolate(values[None], new, mode="linear")[0]
        close(values @ student(WEIGHTS, old=old, new=new).T, expected, 1e-12)


# ── 8.2: bilinear pooling in PyTorch ──────────────────────────────────────────────────────────────────────────────────

POOL = "model.pooling:pool_grid"


@pytest.mark.exercise("8.2")
def test_a_linear_function_of_the_position_stays_one(student):
    rows, columns = torch.arange(6.0)[:, None], torch.arange(9.0)
    grid = torch.stack([rows + 0 * columns, 10 * columns + 0 * rows, rows + 7 * columns], dim=-1)
    result = student(POOL, grid=grid, size=(3, 3))
    new_rows, new_columns = torch.tensor([0.5, 2.5, 4.5])[:, None], torch.tensor([1.0, 4.0, 7.0])
    expected = [new_rows + 0 * new_columns, 10 * new_columns + 0 * new_rows, new_rows + 7 * new_columns]
    close(result, torch.stack(expected, dim=-1), 1e-5)


@pytest.mark.exercise("8.2")
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_grids_are_pooled_separately(student, leading):
    grid = torch.randn(*leading, 4, 6, 5)
    result = student(POOL, grid=grid, size=(2, 3))
    close(result, grid.unflatten(-3, (2, 2)).unflatten(-2, (3, 2)).mean(dim=(-4, -2)).reshape(*leading, 2, 3, 5))


@pytest.mark.exercise("8.2")
def test_the_border_is_clamped_and_nothing_is_smoothed(student):
    grid = torch.tensor([0.0, 6.0, 0.0, 0.0, 0.0, 0.0]).reshape(1, 6, 1)
    # Pooled to two, the values are between places 1 and 1, and 4 and 4: an antialiased filter would average three.
    close(student(POOL, grid=grid, size=(1, 2))[..., 0], torch.tensor([[6.0, 0.0]]))
    close(student(POOL, grid=grid, size=(1, 12))[0, :4, 0], torch.tensor([0.0, 1.5, 4.5, 4.5]))


@pytest.mark.exercise("8.2")
def test_gradients_reach_the_features(student):
    _, gradients = student(POOL, upstream=torch.ones(2, 2, 1), grid=torch.randn(4, 4, 1), size=(2, 2))
    close(gradients["grid"], torch.full((4, 4, 1), 0.25))


# ── 8.3: pool only what is too large ──────────────────────────────────────────────────────────────────────────────────

LIMIT = "model.pooling:limit_patches"


@pytest.mark.exercise("8.3")
@pytest.mark.parametrize(
    ("shape", "max_patches", "size"),
    [
        ((4, 4), 16, (4, 4)),
        ((11, 11), 100, (11, 11)),  # a ratio of exactly 1.1
        ((12, 12), 100, (10, 10)),
        ((8, 8), 16, (4, 4)),
        ((5, 20), 40, (3, 12)),  # both sides divided by 1.58, and rounded down
        ((20, 5), 40, (12, 3)),
        ((3, 3), 100, (3, 3)),  # never enlarged
    ],
)
def test_the_size_of_a_pooled_grid(student, shape, max_patches, size):
    grid = torch.randn(*shape, 2)
    result = student(LIMIT, grid=grid, max_patches=max_patches)
    assert result.shape == (*size, 2)
    channels_first = grid.permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(channels_first, size, mode="bilinear")[0].permute(1, 2, 0)
    close(result, grid if size == shape else expected)


@pytest.mark.exercise("8.3")
def test_gradients_of_both_cases(student):
    for side, size in ((4, 4), (8, 4)):
        grid, upstream = torch.randn(side, side, 1), torch.ones(size, size, 1)
        _, gradients = student(LIMIT, upstream=upstream, grid=grid, max_patches=16)
        close(gradients["grid"], torch.full((side, side, 1), (size / side) ** 2))


# ── 8.4: join the tiles ───────────────────────────────────────────────────────────────────────────────────────────────

JOIN = "model.tiling:join_tiles"


def tiled(grid, side):
    """Tiles whose patches are numbered by their place in the image: row · 100 + column; the first tile has −1, −2, …"""
    rows, columns = grid
    large = torch.arange(rows * side)[:, None] * 100.0 + torch.arange(columns * side)
    tiles = large.reshape(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, side * side, 1)
    return torch.cat([-1.0 - torch.arange(side * side)[None, :, None], tiles]), large


@pytest.mark.exercise("8.4")
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_the_image_first_then_rows_with_newlines(student, grid):
    tiles, large = tiled(grid, 2)
    image = (grid[0] * 2, grid[1] * 2)
    result = student(JOIN, tiles=tiles, image=image, grid=grid, newline=torch.tensor([0.5]), max_patches=99)
    lines = torch.cat([large, torch.full((len(large), 1), 0.5)], dim=1)
    close(result[:, 0], torch.cat([torch.tensor([-1.0, -2.0, -3.0, -4.0]), lines.flatten()]))


@pytest.mark.exercise("8.4")
def test_padding_is_removed_before_pooling(student):
    tiles, large = tiled((4, 4), 2)
    # A wide image fills rows 2 to 5 of 8; 32 patches are pooled to 8: 2 rows of 4.
    arguments = {"image": (10, 20), "grid": (4, 4), "newline": torch.tensor([0.5]), "max_patches": 8}
    result = student(JOIN, tiles=tiles, **arguments)
    pooled = large[2:6].reshape(2, 2, 4, 2).mean(dim=(1, 3))
    lines = torch.cat([pooled, torch.full((2, 1), 0.5)], dim=1)
    close(result[4:, 0], lines.flatten(), 1e-4)
    assert len(result) == 4 + 10


@pytest.mark.exercise("8.4")
def test_one_of_several_images_has_one_newline_at_its_end(student):
    tiles, newline, upstream = torch.randn(1, 4, 3), torch.randn(3), torch.randn(5, 3)
    arguments = {"image": (10, 20), "grid": (1, 1), "max_patches": 1}
    result, gradients = student(JOIN, upstream=upstream, tiles=tiles, newline=newline, **arguments)
    close(result, torch.cat([tiles[0], newline[None]]))
    close(gradients["tiles"][0], upstream[:4])
    close(gradients["newline"], upstream[4])


@pytest.mark.exercise("8.4")
def test_the_newline_is_not_pooled_and_learns_from_every_row(student):
    tiles, newline, upstream = torch.randn(5, 4, 3), torch.randn(3), torch.randn(4 + 2 * 3, 3)
    arguments = {"image": (8, 8), "grid": (2, 2), "max_patches": 4}
    result, gradients = student(JOIN, upstream=upstream, tiles=tiles, newline=newline, **arguments)
    close(result[6], newline)
    close(gradients["newline"], upstream[[6, 9]].sum(0))
    close(gradients["tiles"][0], upstream[:4])
    # Each tile of 2 × 2 patches is pooled to one.
    close(gradients["tiles"][1:, 0] * 4, upstream[[4, 5, 7, 8]])


# ── 8.5: a video as pooled frames ─────────────────────────────────────────────────────────────────────────────────────

FRAMES = "model.tiling:join_frames"


@pytest.mark.exercise("8.5")
@pytest.mark.parametrize("count", [1, 3])
def test_pooled_frames_in_order_with_one_newline(student, count):
    frames, newline = torch.randn(count, 16, 3), torch.randn(3)
    result = student(FRAMES, frames=frames, newline=newline, side=2)
    pooled = frames.reshape(count, 2, 2, 2, 2, 3).mean(dim=(2, 4)).reshape(count * 4, 3)
    close(result, torch.cat([pooled, newline[None]]))


@pytest.mark.exercise("8.5")
def test_frames_of_the_requested_size_are_unchanged(student):
    frames, newline, upstream = torch.randn(2, 9, 3), torch.randn(3), torch.randn(19, 3)
    result, gradients = student(FRAMES, upstream=upstream, frames=frames, newline=newline, side=3)
    close(result, torch.cat([frames.flatten(0, 1), newline[None]]))
    close(gradients["frames"].flatten(0, 1), upstream[:18])
    close(gradients["newline"], upstream[18])


# ── 8.6: frames and pooling within a budget ───────────────────────────────────────────────────────────────────────────

PLANS = "model.token_budget:video_plans"


def plans(student, frames, budget, sides=(7, 14)):
    return student(PLANS, frames=torch.tensor(frames), budget=budget, sides=sides).tolist()


@pytest.mark.exercise("8.6")
def test_the_largest_side_that_fits_all_frames(student):
    assert plans(student, [32, 1, 33, 64, 128, 10_000], 32 * 196 + 1) == [
        [32, 14],
        [1, 14],
        [33, 13],
        [64, 9],
        [128, 7],
        [128, 7],
    ]
    assert plans(student, [32], 32 * 196) == [[32, 13]]
    assert plans(student, [128], 128 * 49) == [[127, 7]]
    assert plans(student, [5], 50) == [[1, 7]]


@pytest.mark.exercise("8.6")
def test_no_other_plan_is_better(student):
    """Of all plans within the budget: first the most frames, then the largest side."""
    for budget in range(5, 400, 7):
        for frames in (1, 2, 5, 11, 40):
            fitting = [
                (count, side) for count in range(1, frames + 1) for side in range(2, 6) if count * side**2 + 1 <= budget
            ]
            assert tuple(plans(student, [frames], budget, (2, 5))[0]) == max(fitting)


@pytest.mark.exercise("8.6")
def test_sides_are_exact_where_the_root_is_whole(student):
    for side in range(2, 200):
        assert plans(student, [3], 3 * side**2 + 1, (1, 500)) == [[3, side]]
        assert plans(student, [3], 3 * side**2, (1, 500)) == [[3, side - 1]]
    # In float32, 5000² − 1 is 5000².
    assert plans(student, [1], 5000**2, (1, 9000)) == [[1, 4999]]


@pytest.mark.exercise("8.6")
def test_random_videos_and_budgets(student):
    for budget in torch.randint(10, 3000, (5,)).tolist():
        videos = torch.randint(1, 60, (4,)).tolist()
        for frames, (count, side) in zip(videos, plans(student, videos, budget, (3, 9)), strict=True):
            assert count * side**2 < budget, "the newline is a token, too"
            assert count == frames or (side == 3 and (count + 1) * 9 >= budget)
            assert side == 9 or count * (side + 1) ** 2 >= budget or count < frames


# ── 8.7: expand the placeholders ──────────────────────────────────────────────────────────────────────────────────────

EXPAND = "model.sequence:expand_placeholders"


@pytest.mark.exercise("8.7")
@pytest.mark.parametrize(
    ("token_ids", "counts", "expected"),
    [
        ([5, 90, 6], [3], [5, 90, 90, 90, 6]),
        ([90, 7, 91, 90], [2, 1, 3], [90, 90, 7, 91, 90, 90, 90]),
        ([91, 91], [1, 2], [91, 91, 91]),
        ([5, 5, 6], [], [5, 5, 6]),
    ],
)
def test_each_placeholder_is_repeated(student, token_ids, counts, expected):
    result = student(EXPAND, token_ids=torch.tensor(token_ids), counts=counts, placeholders=(90, 91))
    assert result.tolist() == expected and result.dtype == torch.long


@pytest.mark.exercise("8.7")
def test_random_texts_and_counts(student):
    token_ids = torch.randint(0, 6, (20,)).tolist()
    counts = torch.randint(1, 5, (len([token for token in token_ids if token in (4, 5)]),)).tolist()
    remaining, expected = list(counts), []
    for token in token_ids:
        expected += [token] * (remaining.pop(0) if token in (4, 5) else 1)
    result = student(EXPAND, token_ids=torch.tensor(token_ids), counts=counts, placeholders=(4, 5))
    assert result.tolist() == expected


# ── 8.8: divide the steps among the stages ────────────────────────────────────────────────────────────────────────────

STEPS = "model.curriculum:split_steps"


@pytest.mark.exercise("8.8")
@pytest.mark.parametrize(
    ("samples", "steps", "expected"),
    [
        ([1, 1, 1], 3, [1, 1, 1]),
        ([1, 1, 1], 9, [3, 3, 3]),
        ([1, 3], 10, [3, 7]),
        ([1_000_000, 1], 12, [11, 1]),
        ([558, 4000, 3200, 1600], 100, [7, 42, 34, 17]),
        ([1, 1, 1], 4, [2, 1, 1]),  # among equal remainders, the first stage
        ([1] * 40, 50, [2] * 10 + [1] * 30),
        ([5], 17, [17]),
        ([3, 5, 2], 8, [3, 3, 2]),  # quotas 1.5, 2.5 and 1.0
        ([319, 35, 72], 654, [489, 54, 111]),  # the first two remainders are equal, but not in float32
    ],
)
def test_steps_are_in_proportion_and_at_least_one(student, samples, steps, expected):
    assert student(STEPS, samples=torch.tensor(samples), steps=steps).tolist() == expected


@pytest.mark.exercise("8.8")
def test_no_stage_is_a_step_from_its_quota(student):
    for steps in (7, 50, 333):
        samples = torch.randint(1, 10_000, (6,))
        counts = student(STEPS, samples=samples, steps=steps)
        assert int(counts.sum()) == steps
        quotas = 1 + samples.double() * (steps - 6) / samples.sum()
        assert ((counts - quotas).abs() < 1).all()


# ── 8.9: mix the types of input ───────────────────────────────────────────────────────────────────────────────────────

MIX = "model.curriculum:mixture_schedule"


def schedule(student, weights, steps):
    return student(MIX, weights=torch.tensor(weights, dtype=torch.float64), steps=steps).tolist()


@pytest.mark.exercise("8.9")
def test_the_order_of_a_small_mixture(student):
    assert schedule(student, [0.5, 0.25, 0.25], 8) == [0, 1, 2, 0, 0, 1, 2, 0]
    assert schedule(student, [1.0], 3) == [0, 0, 0]
    assert schedule(student, [0.5, 0.5], 4) == [0, 1, 0, 1]
    assert schedule(student, [0.75, 0.125, 0.125], 8) == [0, 0, 1, 0, 0, 2, 0, 0]


@pytest.mark.exercise("8.9")
@pytest.mark.parametrize("weights", [(0.47, 0.33, 0.2), (0.9, 0.1), (0.25, 0.25, 0.5)])
def test_every_prefix_has_nearly_the_fractions_of_the_mixture(student, weights):
    order = schedule(student, list(weights), 300)
    for length in range(1, 301):
        for kind, weight in enumerate(weights):
            assert abs(order[:length].count(kind) - weight * length) < 1 + 1e-9
    assert math.isclose(order.count(0) / 300, weights[0], abs_tol=1 / 300)


@pytest.mark.exercise("8.9")
def test_a_random_mixture_of_three(student):
    """No type is ever a step ahead of its fraction, or behind it."""
    weights = torch.rand(3, dtype=torch.float64).softmax(0).tolist()
    order = schedule(student, weights, 100)
    for length in range(1, 101):
        assert max(abs(order[:length].count(kind) - weights[kind] * length) for kind in range(3)) < 1


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        JOIN,
        {"tiles": torch.ones(1, 4, 1), "image": (4, 4), "grid": (1, 1), "newline": torch.ones(1), "max_patches": 9},
        [(5, 1)],
        marks=pytest.mark.exercise("8.4"),
    ),
    pytest.param(
        FRAMES,
        {"frames": torch.ones(1, 4, 1), "newline": torch.ones(1), "side": 1},
        [(2, 1)],
        marks=pytest.mark.exercise("8.5"),
    ),
    pytest.param(
        EXPAND,
        {"token_ids": torch.tensor([3]), "counts": [], "placeholders": (9,)},
        [(1,)],
        marks=pytest.mark.exercise("8.7"),
    ),
    pytest.param(MIX, {"weights": torch.ones(1), "steps": 1}, [(1,)], marks=pytest.mark.exercise("8.9")),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
