"""The exercises, each reached through `student` alone: tensors and numbers in, tensors out."""

import math
from fractions import Fraction

import pytest
import torch
from torch.nn import functional as F


def close(result, expected, tolerance=1e-6):
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 6.1: the block-diagonal mask ──────────────────────────────────────────────────────────────────────────────────────

BLOCK_MASK = "reference:block_diagonal_mask"


@pytest.mark.exercise("6.1")
def test_a_token_attends_to_its_own_image_only(student):
    images = [[2, 2, 2, 0, 0], [1, 3, 3, -1, -1], [4, 4, 4, 4, 4]]
    mask = student(BLOCK_MASK, image_index=images)
    assert mask.shape == (3, 1, 5, 5)
    for row, members in enumerate(images):
        for query in range(5):
            for key in range(5):
                expected = 0.0 if members[query] == members[key] else -math.inf
                assert mask[row, 0, query, key] == expected


@pytest.mark.exercise("6.1")
def test_every_token_attends_to_some_token(student):
    mask = student(BLOCK_MASK, image_index=[[0, -1, -1, -1]])
    assert (mask == 0).any(dim=-1).all()


@pytest.mark.exercise("6.1")
def test_the_tokens_of_random_rows(student):
    images = torch.randint(-1, 4, (3, 7))
    mask = student(BLOCK_MASK, image_index=images.tolist())
    assert mask.shape == (3, 1, 7, 7)
    for row, token in torch.cartesian_prod(torch.arange(3), torch.arange(7)).tolist():
        same = images[row] == images[row, token]
        assert (mask[row, 0, token][same] == 0).all() and (mask[row, 0, token][~same] == -math.inf).all()


# ── 6.2 and 6.10: the mean per image ──────────────────────────────────────────────────────────────────────────────────

MODEL_MEAN = "model.pooling:mean_per_image"
IMAGES = [[2, 2, 2, 0, 0, -1], [1, 3, 3, 3, -1, -1]]
SIZES = [2, 1, 3, 3]


def reference_mean(student, tokens, **options):
    result = student("reference:mean_per_image", x=tokens, image_index=IMAGES, count=4, **options)
    return (result[0], {"tokens": result[1]["x"]}) if isinstance(result, tuple) else result


def model_mean(student, tokens, **options):
    return student(MODEL_MEAN, tokens=tokens, image_index=torch.tensor(IMAGES), count=4, **options)


MEANS = [
    pytest.param(reference_mean, marks=pytest.mark.exercise("6.2")),
    pytest.param(model_mean, marks=pytest.mark.exercise("6.10")),
]


@pytest.mark.parametrize("mean", MEANS)
def test_means_are_in_the_order_of_the_images(student, mean):
    tokens = torch.randn(2, 6, 3)
    expected = [tokens[0, 3:5], tokens[1, :1], tokens[0, :3], tokens[1, 1:4]]
    close(mean(student, tokens), torch.stack([part.mean(dim=0) for part in expected]))


@pytest.mark.parametrize("mean", MEANS)
def test_each_token_gets_its_share_of_the_gradient_and_padding_none(student, mean):
    tokens, upstream = torch.randn(2, 6, 3), torch.randn(4, 3)
    _, gradients = mean(student, tokens, upstream=upstream)
    expected = torch.zeros(2, 6, 3)
    for row, members in enumerate(IMAGES):
        for token, image in enumerate(members):
            if image >= 0:
                expected[row, token] = upstream[image] / SIZES[image]
    close(gradients["tokens"], expected)


@pytest.mark.exercise("6.10")
def test_a_mean_of_many_tokens_in_half_precision_is_exact(student):
    tokens = torch.ones(1, 1200, 2, dtype=torch.bfloat16)
    images = torch.tensor([[0] * 900 + [1] * 200 + [-1] * 100])
    result = student(MODEL_MEAN, tokens=tokens, image_index=images, count=2)
    assert result.dtype == torch.bfloat16
    close(result, torch.ones(2, 2), 1e-3)


@pytest.mark.exercise("6.10")
def test_double_precision_stays_double(student):
    tokens = torch.randn(1, 7, 2, dtype=torch.float64)
    result = student(MODEL_MEAN, tokens=tokens, image_index=torch.zeros(1, 7, dtype=torch.long), count=1)
    assert result.dtype == torch.float64
    close(result[0], tokens[0].mean(dim=0), 1e-14)


# ── 6.3: the grid for a token budget ──────────────────────────────────────────────────────────────────────────────────

GRIDS = "model.resize:budget_grids"


def grid_of(student, height, width, patch_size, max_patches):
    sizes = torch.tensor([[height, width]])
    return tuple(student(GRIDS, sizes=sizes, patch_size=patch_size, max_patches=max_patches)[0].tolist())


@pytest.mark.exercise("6.3")
@pytest.mark.parametrize(
    ("height", "width", "patch_size", "max_patches", "grid"),
    [
        (480, 640, 16, 256, (14, 18)),
        (640, 480, 16, 256, (18, 14)),
        (224, 224, 16, 256, (16, 16)),
        (100, 99, 16, 256, (16, 16)),
        (1080, 1920, 16, 1024, (24, 42)),
        (700, 33, 16, 256, (64, 4)),
        (30, 20, 7, 3, (2, 1)),
        # A tiny image is enlarged 100 times at most.
        (1, 1, 16, 256, (7, 7)),
        (1, 5000, 16, 256, (1, 256)),
        (5000, 1, 16, 1, (1, 1)),
    ],
)
def test_the_largest_grid_within_the_budget(student, height, width, patch_size, max_patches, grid):
    assert grid_of(student, height, width, patch_size, max_patches) == grid


@pytest.mark.exercise("6.3")
@pytest.mark.parametrize(("width", "columns"), [(1_000_000, 997), (700_001, 998), (3_000_000, 987)])
def test_the_search_ends_at_the_published_precision(student, width, columns):
    """The sides of very long images show the last step of the bisection."""
    assert grid_of(student, 1, width, 1, 1000) == (1, columns)


@pytest.mark.exercise("6.3")
def test_no_larger_scale_fits_a_random_image(student):
    for _ in range(6):
        height, width = torch.randint(8, 60, (2,)).tolist()
        budget = int(torch.randint(4, 60, ()))
        rows, columns = grid_of(student, height, width, 8, budget)
        assert rows * columns <= budget
        # The greatest scale at which the image still has so many rows and columns of patches, and a little more.
        scale = min(8 * rows / height, 8 * columns / width)
        at, beyond = (
            [-(-Fraction(side) * Fraction(scale) * factor // 8) for side in (height, width)]
            for factor in (Fraction(10**6 - 1, 10**6), Fraction(10**6 + 1, 10**6))
        )
        assert at == [rows, columns] and beyond[0] * beyond[1] > budget


# ── 6.4: patches and their coordinates ────────────────────────────────────────────────────────────────────────────────

PATCHES = "model.patches:cut_patches"


@pytest.mark.exercise("6.4")
@pytest.mark.parametrize(("rows", "columns"), [(2, 5), (5, 2), (1, 1), (3, 3)])
def test_each_patch_is_where_its_coordinates_say(student, rows, columns):
    image = torch.randn(3, rows * 2, columns * 2)
    patches, coordinates = student(PATCHES, image=image, patch_size=2)
    assert patches.shape == (rows * columns, 12)
    assert coordinates.tolist() == [[row, column] for row in range(rows) for column in range(columns)]
    for patch, (row, column) in zip(patches, coordinates.tolist(), strict=True):
        pixels = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        close(patch, pixels.permute(1, 2, 0).flatten())


@pytest.mark.exercise("6.4")
def test_pixels_get_gradients(student):
    image, upstream = torch.randn(2, 6, 9), torch.randn(6, 18)
    _, gradients = student(PATCHES, upstream=upstream, image=image, patch_size=3)
    expected = torch.stack([upstream[row * 3 + column] for row in range(2) for column in range(3)])
    close(
        gradients["image"],
        F.fold(expected.unflatten(1, (9, 2)).transpose(1, 2).flatten(1).T[None], (6, 9), 3, stride=3)[0],
    )


# ── 6.5: token dropping ───────────────────────────────────────────────────────────────────────────────────────────────

KEPT_INDICES = "model.patches:kept_indices"


@pytest.mark.exercise("6.5")
@pytest.mark.parametrize(
    ("rate", "kept_indices"), [(0.0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 3, 4]), (0.5, [1, 3, 4]), (0.6, [1, 4])]
)
def test_the_highest_noise_is_dropped_and_the_order_stays(student, rate, kept_indices):
    noise = torch.tensor([0.6, 0.1, 0.9, 0.5, 0.2])
    assert student(KEPT_INDICES, noise=noise, rate=rate).tolist() == kept_indices


@pytest.mark.exercise("6.5")
@pytest.mark.parametrize(
    ("tokens", "rate", "count"),
    [(100, 0.29, 71), (100, 0.57, 43), (7, 0.5, 4), (10, 0.99, 1), (1, 0.9, 1), (3, 0.7, 1), (6, 1 - 1e-9, 1)],
)
def test_the_number_of_dropped_tokens_is_rounded_down_and_one_stays(student, tokens, rate, count):
    assert len(student(KEPT_INDICES, noise=torch.rand(tokens), rate=rate)) == count


# ── 6.6: bin packing ──────────────────────────────────────────────────────────────────────────────────────────────────

ROWS = "model.packing:row_of_image"
FIRST, FIRST_DECREASING, BEST_DECREASING = "first-fit", "first-fit-decreasing", "best-fit-decreasing"


@pytest.mark.exercise("6.6")
@pytest.mark.parametrize(
    ("lengths", "row_length", "strategy", "rows"),
    [
        ([5, 7, 5, 2, 4, 2, 5], 10, FIRST, [0, 1, 0, 1, 2, 2, 3]),
        ([5, 7, 5, 2, 4, 2, 5], 10, FIRST_DECREASING, [1, 0, 1, 0, 2, 3, 2]),
        # The last image fits into both rows: the first one, or the one that it fills.
        ([6, 7, 2, 1], 9, FIRST_DECREASING, [1, 0, 0, 1]),
        ([5, 6, 2], 8, FIRST, [0, 1, 0]),
        ([5, 6, 2], 8, FIRST_DECREASING, [1, 0, 0]),
        ([7, 6, 2], 9, FIRST_DECREASING, [0, 1, 0]),
        ([6, 5, 3], 9, BEST_DECREASING, [0, 1, 0]),
        ([6, 5, 4], 9, BEST_DECREASING, [0, 1, 1]),
        ([6, 7, 3], 10, FIRST, [0, 1, 0]),
        ([7, 8, 2, 1], 10, FIRST_DECREASING, [1, 0, 0, 1]),
        ([16, 15, 14, 4, 3, 2], 20, FIRST_DECREASING, [0, 1, 2, 0, 1, 1]),
        ([16, 15, 14, 3], 20, FIRST_DECREASING, [0, 1, 2, 0]),
        ([14, 13, 12, 7, 5], 20, BEST_DECREASING, [0, 1, 2, 1, 0]),
        ([13, 14, 12, 5], 20, BEST_DECREASING, [1, 0, 2, 0]),
        # Among rows with equal space, the first.
        ([8, 8, 8, 1], 10, BEST_DECREASING, [0, 1, 2, 0]),
        ([4], 4, FIRST, [0]),
        ([], 4, BEST_DECREASING, []),
    ],
)
def test_the_row_of_each_image(student, lengths, row_length, strategy, rows):
    assert student(ROWS, lengths=lengths, row_length=row_length, strategy=strategy).tolist() == rows


@pytest.mark.exercise("6.6")
def test_best_fit_prefers_the_fullest_row_to_the_first(student):
    lengths = [12, 10, 9, 1]  # the second row, of 10 and 9, has space for exactly 1
    assert student(ROWS, lengths=lengths, row_length=20, strategy=FIRST_DECREASING).tolist() == [0, 1, 1, 0]
    assert student(ROWS, lengths=lengths, row_length=20, strategy=BEST_DECREASING).tolist() == [0, 1, 1, 1]


@pytest.mark.exercise("6.6")
@pytest.mark.parametrize("strategy", [FIRST, FIRST_DECREASING, BEST_DECREASING])
def test_each_of_many_random_images_goes_where_the_strategy_says(student, strategy):
    lengths = torch.randint(1, 11, (25,)).tolist()
    rows = student(ROWS, lengths=lengths, row_length=12, strategy=strategy).tolist()
    places = list(enumerate(lengths))
    if strategy != FIRST:
        places = [(image, length) for size in range(10, 0, -1) for image, length in places if length == size]
    used = [0] * 25
    for image, length in places:
        # Rows with tokens can take an image, and so can the first empty row.
        candidates = [row for row in range(25) if used[row] + length <= 12 and (row == 0 or used[row - 1] > 0)]
        fullest = max(used[row] for row in candidates)
        best = next(row for row in candidates if used[row] == fullest)
        assert rows[image] == (best if strategy == BEST_DECREASING else candidates[0])
        used[rows[image]] += length


# ── 6.7: segments of packed rows ──────────────────────────────────────────────────────────────────────────────────────

SEGMENTS = "model.packing:row_segments"


@pytest.mark.exercise("6.7")
def test_segments_count_the_images_of_a_row_and_padding_is_minus_one(student):
    segments, places = student(SEGMENTS, rows=[[2, 0], [3, 1, 4]], lengths=[2, 1, 3, 2, 1], row_length=6)
    assert segments.tolist() == [[0, 0, 0, 1, 1, -1], [0, 0, 1, 2, -1, -1]]
    assert places.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0], [1, 2]]


@pytest.mark.exercise("6.7")
def test_full_rows_and_rows_of_one_image(student):
    segments, places = student(SEGMENTS, rows=[[0], [1], [2, 3]], lengths=[4, 1, 2, 2], row_length=4)
    assert segments.tolist() == [[0] * 4, [0, -1, -1, -1], [0, 0, 1, 1]]
    assert places.tolist() == [[0, 0], [1, 0], [2, 0], [2, 1]]


@pytest.mark.exercise("6.7")
def test_segments_and_places_of_random_rows(student):
    lengths, order = torch.randint(1, 5, (7,)).tolist(), torch.randperm(7).tolist()
    rows = [order[:1], order[1:4], order[4:]]
    segments, places = student(SEGMENTS, rows=rows, lengths=lengths, row_length=13)
    for row, images in enumerate(rows):
        expected = [segment for segment, image in enumerate(images) for _ in range(lengths[image])]
        assert segments[row].tolist() == expected + [-1] * (13 - len(expected))
        assert [places[image].tolist() for image in images] == [[row, segment] for segment in range(len(images))]


# ── 6.8: antialiased linear interpolation ─────────────────────────────────────────────────────────────────────────────

RESIZE = "model.positions:resize_matrix"


@pytest.mark.exercise("6.8")
@pytest.mark.parametrize(("old", "new"), [(6, 6), (16, 5), (5, 16), (7, 1), (1, 7), (4, 3), (3, 4), (16, 15)])
def test_the_weights_are_those_of_an_antialiased_bilinear_filter(student, old, new):
    weights = student(RESIZE, old=old, new=new)
    assert weights.shape == (new, old)
    close(weights.sum(dim=1), torch.ones(new), 1e-14)
    columns = torch.randn(old, 4, dtype=torch.float64)
    expected = F.interpolate(columns[None, None], size=(new, 4), mode="bilinear", antialias=True)[0, 0]
    close(weights @ columns, expected, 1e-12)


@pytest.mark.exercise("6.8")
def test_weights_between_random_numbers_of_points(student):
    for old, new in torch.randint(2, 40, (6, 2)).tolist():
        columns = torch.randn(old, 3, dtype=torch.float64)
        expected = F.interpolate(columns[None, None], size=(new, 3), mode="bilinear", antialias=True)[0, 0]
        close(student(RESIZE, old=old, new=new) @ columns, expected, 1e-12)


# ── 6.9: factorized positions ─────────────────────────────────────────────────────────────────────────────────────────

AXIS = "model.positions:axis_positions"


def vectors(student, table, index, side, fractional, **options):
    return student(
        AXIS, table=table, index=torch.tensor(index), side=torch.tensor(side), fractional=fractional, **options
    )


@pytest.mark.exercise("6.9")
def test_absolute_positions_read_the_table_whatever_the_side(student):
    table = torch.randn(5, 3)
    index = [[0, 4, 2], [1, 1, 3]]
    for side in ([[5, 5, 5], [5, 5, 5]], [[9, 9, 9], [4, 4, 4]]):
        close(vectors(student, table, index, side, False), table[torch.tensor(index)])


@pytest.mark.exercise("6.9")
def test_an_absolute_index_beyond_the_table_is_refused(student):
    with pytest.raises(ValueError, match="index 5, but the table ends at 4"):
        vectors(student, torch.randn(5, 3), [0, 5], [6, 6], False)


@pytest.mark.exercise("6.9")
def test_fractional_positions_are_interpolated_between_entries(student):
    table = torch.randn(4, 3)
    index, side = [0, 1, 2, 3, 0, 1, 2, 1, 9], [4, 4, 4, 4, 1, 2, 3, 5, 10]
    places = [0, 1, 2, 3, 0, 2, 8 / 3, 0.8, 3.6]
    expected = []
    for place in places:
        lower = int(place)
        upper = min(lower + 1, 3)
        expected.append(table[lower] * (1 - (place - lower)) + table[upper] * (place - lower))
    close(vectors(student, table, index, side, True), torch.stack(expected))


@pytest.mark.exercise("6.9")
@pytest.mark.parametrize("fractional", [False, True])
def test_the_table_gets_gradients(student, fractional):
    table, upstream = torch.randn(4, 3), torch.randn(2, 3)
    _, gradients = vectors(student, table, [1, 3], [2, 4] if fractional else [4, 4], fractional, upstream=upstream)
    expected = torch.zeros(4, 3)
    expected[2 if fractional else 1] += upstream[0]
    expected[3] += upstream[1]
    close(gradients["table"], expected)


@pytest.mark.exercise("6.9")
def test_fractional_positions_keep_the_dtype_of_the_table(student):
    table = torch.randn(4, 3).bfloat16()
    assert vectors(student, table, [1, 1], [3, 7], True).dtype == torch.bfloat16
    table = torch.randn(4, 3, dtype=torch.float64)
    assert vectors(student, table, [1, 1], [3, 7], True).dtype == torch.float64


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        SEGMENTS, {"rows": [[0]], "lengths": [2], "row_length": 3}, [(1, 3), (1, 2)], marks=pytest.mark.exercise("6.7")
    ),
    pytest.param(
        AXIS,
        {"table": torch.ones(3, 1), "index": torch.tensor([1]), "side": torch.tensor([3]), "fractional": True},
        [(1, 1)],
        marks=pytest.mark.exercise("6.9"),
    ),
    pytest.param(
        AXIS,
        {"table": torch.ones(3, 1), "index": torch.tensor([1]), "side": torch.tensor([3]), "fractional": False},
        [(1, 1)],
        marks=pytest.mark.exercise("6.9"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
