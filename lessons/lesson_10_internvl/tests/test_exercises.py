"""The exercises, each reached through `student` alone: tensors and numbers in, tensors out."""

import math
from fractions import Fraction

import pytest
import torch


def close(result, expected, tolerance=1e-6):
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 10.1: pixel unshuffle ─────────────────────────────────────────────────────────────────────────────────────────────

UNSHUFFLE = "model.projector:pixel_unshuffle"


@pytest.mark.exercise("10.1")
@pytest.mark.parametrize(("rows", "columns", "factor"), [(2, 2, 2), (4, 6, 2), (6, 3, 3), (2, 3, 1), (4, 8, 4)])
def test_squares_of_neighbors_move_into_the_width(student, rows, columns, factor):
    grid, width = torch.randn(2, rows, columns, 3), 3 * factor**2
    upstream = torch.randn(2, rows // factor, columns // factor, width)
    result, gradients = student(UNSHUFFLE, grid=grid, factor=factor, upstream=upstream)
    assert result.shape == upstream.shape
    for row, column in torch.cartesian_prod(torch.arange(rows // factor), torch.arange(columns // factor)).tolist():
        square = grid[:, row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert torch.equal(result[:, row, column], square.flatten(1))
        expected = upstream[:, row, column].reshape(2, factor, factor, 3)
        place = (slice(row * factor, (row + 1) * factor), slice(column * factor, (column + 1) * factor))
        assert torch.equal(gradients["grid"][:, place[0], place[1]], expected)


# ── 10.2 and 10.3: V2PE ───────────────────────────────────────────────────────────────────────────────────────────────

TOKEN_STEPS, POSITIONS = "model.positions:token_steps", "model.positions:v2pe_positions"
T, V = False, True


@pytest.mark.exercise("10.2")
def test_each_visual_token_has_the_step_of_its_image(student):
    is_visual = torch.tensor([[T, V, V, T, V, T, T], [V, V, T, T, V, V, V], [T, T, T, T, T, T, T]])
    steps = torch.tensor([0.5, 0.25, 0.125, 2.0])
    result = student(TOKEN_STEPS, is_visual=is_visual, image_steps=steps)
    expected = [
        [1, 0.5, 0.5, 1, 0.25, 1, 1],
        [0.125, 0.125, 1, 1, 2, 2, 2],
        [1, 1, 1, 1, 1, 1, 1],
    ]
    assert result.dtype == torch.float32 and result.tolist() == expected


@pytest.mark.exercise("10.2")
def test_images_end_with_their_row(student):
    is_visual = torch.tensor([[T, V, V], [V, V, T]])
    result = student(TOKEN_STEPS, is_visual=is_visual, image_steps=torch.tensor([0.5, 0.25]))
    assert result.tolist() == [[1, 0.5, 0.5], [0.25, 0.25, 1]]


@pytest.mark.exercise("10.2")
def test_steps_keep_their_precision_and_get_a_gradient(student):
    is_visual, upstream = torch.tensor([[V, V, T, V]]), torch.tensor([[1.0, 2.0, 4.0, 8.0]]).double()
    steps = torch.tensor([0.3, 0.7]).double()
    result, gradients = student(TOKEN_STEPS, is_visual=is_visual, image_steps=steps, upstream=upstream)
    assert result.dtype == torch.float64 and result.tolist() == [[steps[0], steps[0], 1, steps[1]]]
    close(gradients["image_steps"], torch.tensor([3.0, 8.0]))


@pytest.mark.exercise("10.3")
def test_each_token_moves_on_by_its_own_step(student):
    steps = torch.tensor([[1, 1, 0.25, 0.25, 1, 1], [0.5, 0.5, 0.5, 1, 1, 0.125], [1, 1, 1, 1, 1, 1]])
    result = student(POSITIONS, steps=steps)
    expected = [[0, 1, 1.25, 1.5, 2.5, 3.5], [0, 0.5, 1, 2, 3, 3.125], [0, 1, 2, 3, 4, 5]]
    assert result.tolist() == expected


@pytest.mark.exercise("10.3")
def test_a_step_moves_all_later_tokens(student):
    upstream = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    _, gradients = student(POSITIONS, steps=torch.ones(1, 4), upstream=upstream)
    close(gradients["steps"], torch.tensor([[0.0, 14.0, 12.0, 8.0]]))


@pytest.mark.exercise("10.2")
def test_the_steps_of_random_texts(student):
    is_visual = torch.rand(3, 9) < 0.6
    steps, expected = [], []
    for row in is_visual.tolist():
        before = False
        for visual in row:
            if visual and not before:
                steps.append(float(torch.rand(())))
            expected.append(steps[-1] if visual else 1.0)
            before = visual
    result = student(TOKEN_STEPS, is_visual=is_visual, image_steps=torch.tensor(steps))
    close(result.flatten(), torch.tensor(expected))


@pytest.mark.exercise("10.3")
def test_the_positions_of_random_steps(student):
    steps = torch.rand(2, 6)
    positions = student(POSITIONS, steps=steps)
    assert positions[:, 0].tolist() == [0, 0]
    for token in range(1, 6):
        close(positions[:, token] - positions[:, token - 1], steps[:, token])


# ── 10.4: the grid of tiles ───────────────────────────────────────────────────────────────────────────────────────────

GRIDS = "model.tiling:select_grids"


@pytest.mark.exercise("10.4")
@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((100, 100), (1, 12), (1, 1)),  # the grids of 2 × 2 and 3 × 3 would enlarge the image
        ((141, 141), (1, 12), (1, 1)),
        ((142, 142), (1, 12), (2, 2)),
        ((142, 142), (1, 3), (1, 1)),
        ((213, 213), (1, 12), (3, 3)),
        ((212, 212), (1, 12), (2, 2)),
        ((100, 200), (1, 12), (1, 2)),
        ((200, 100), (1, 12), (2, 1)),
        ((200, 400), (1, 12), (2, 4)),  # of 1 × 2 and 2 × 4
        ((400, 200), (1, 12), (4, 2)),
        ((100, 201), (1, 12), (1, 2)),
        ((100, 4000), (1, 12), (1, 12)),
        ((4000, 100), (1, 7), (7, 1)),
        ((300, 400), (1, 12), (3, 4)),
        ((30, 40), (1, 12), (3, 4)),
        ((30, 40), (1, 11), (2, 3)),  # 3/2 and 1/1 differ by 1/6 and 1/3
        ((10, 10), (2, 4), (2, 2)),
        ((10, 10), (2, 3), (2, 1)),  # 1/2 is closer to 1 than 2
        ((10, 15), (1, 2), (1, 1)),  # 1 and 2 are equally close, and the image is small
        ((100, 150), (1, 2), (1, 2)),
        ((100, 100), (5, 5), (5, 1)),
    ],
)
def test_the_grid_has_the_closest_aspect_ratio(student, size, limits, expected):
    result = student(GRIDS, sizes=torch.tensor([size]), tile_size=100, min_tiles=limits[0], max_tiles=limits[1])
    assert tuple(result[0].tolist()) == expected


@pytest.mark.exercise("10.4")
def test_the_grids_of_random_sizes(student):
    sizes = torch.randint(40, 500, (10, 2))
    result = student(GRIDS, sizes=sizes, tile_size=100, min_tiles=1, max_tiles=9).tolist()
    every = [Fraction(columns, rows) for rows in range(1, 10) for columns in range(1, 9 // rows + 1)]
    for (height, width), (rows, columns) in zip(sizes.tolist(), result, strict=True):
        ratio, closest = Fraction(columns, rows), min(abs(Fraction(width, height) - each) for each in every)
        assert abs(Fraction(width, height) - ratio) == closest and rows * columns <= 9
        # The grid is `repeats` times the least grid with its ratio, and the largest that the image half fills.
        repeats, least = rows // ratio.denominator, ratio.numerator * ratio.denominator
        fills = [n for n in (2, 3) if n**2 * least <= 9 and height * width > n**2 * least * 10_000 / 2]
        assert repeats == max([1, *fills])


# ── 10.5: square averaging ────────────────────────────────────────────────────────────────────────────────────────────

WEIGHTS = "model.loss_averaging:token_weights"


@pytest.mark.exercise("10.5")
def test_weights_of_tokens(student):
    lengths = torch.tensor([[4, 1, 9], [0, 16, 2]])
    close(student(WEIGHTS, lengths=lengths, exponent=0.5), torch.tensor([[1 / 2, 1, 1 / 3], [0, 1 / 4, 2**-0.5]]))
    close(student(WEIGHTS, lengths=lengths, exponent=1.0), torch.tensor([[1 / 4, 1, 1 / 9], [0, 1 / 16, 1 / 2]]))
    assert student(WEIGHTS, lengths=lengths, exponent=0.0).tolist() == [[1, 1, 1], [0, 1, 1]]


@pytest.mark.exercise("10.5")
def test_the_weights_of_random_lengths(student):
    lengths, exponent = torch.randint(0, 9, (3, 4)), torch.rand(()).item()
    weights = student(WEIGHTS, lengths=lengths, exponent=exponent)
    for length, weight in zip(lengths.flatten().tolist(), weights.flatten().tolist(), strict=True):
        assert weight * length**exponent == pytest.approx(float(length > 0)) and (length > 0 or weight == 0)


# ── 10.6: the mixer ───────────────────────────────────────────────────────────────────────────────────────────────────

DOCUMENTS = "model.corpus_mixer:document_probabilities"


@pytest.mark.exercise("10.6")
def test_the_expected_tokens_have_the_fractions(student):
    fractions, lengths = torch.tensor([1.0, 3.0, 0.0]).double(), torch.tensor([500.0, 60.0, 9.0]).double()
    result = student(DOCUMENTS, token_fractions=fractions, mean_lengths=lengths)
    close(result.sum(), torch.tensor(1.0), 1e-12)
    tokens = result * lengths
    close(tokens / tokens.sum(), torch.tensor([0.25, 0.75, 0.0]), 1e-12)


@pytest.mark.exercise("10.6")
def test_random_fractions_and_lengths(student):
    fractions, lengths = torch.rand(5).double(), 1 + 900 * torch.rand(5).double()
    tokens = student(DOCUMENTS, token_fractions=fractions, mean_lengths=lengths) * lengths
    close(tokens / tokens.sum(), fractions / fractions.sum(), 1e-12)


# ── 10.7: the quality loss of MPO ─────────────────────────────────────────────────────────────────────────────────────

QUALITY = "model.preference:quality_losses"


@pytest.mark.exercise("10.7")
def test_rewards_are_compared_with_the_shift(student):
    preferred, rejected = torch.tensor([0.5, 3.0, -1.0]).double(), torch.tensor([0.5, -2.0, 4.0]).double()
    arguments = {"preferred_rewards": preferred, "rejected_rewards": rejected, "shift": 0.5}
    upstream = torch.tensor([1.0, 2.0, -1.0]).double()
    result, gradients = student(QUALITY, **arguments, upstream=upstream)
    pairs = list(zip(preferred.tolist(), rejected.tolist(), strict=True))
    expected = [math.log1p(math.exp(0.5 - p)) + math.log1p(math.exp(r - 0.5)) for p, r in pairs]
    close(result, torch.tensor(expected).double(), 1e-6)
    sigma = torch.sigmoid
    close(gradients["preferred_rewards"], upstream * (sigma(preferred - 0.5) - 1), 1e-6)
    close(gradients["rejected_rewards"], upstream * sigma(rejected - 0.5), 1e-6)


@pytest.mark.exercise("10.7")
def test_extreme_rewards_stay_finite(student):
    preferred, rejected = torch.tensor([-500.0, 500.0]), torch.tensor([500.0, -500.0])
    result = student(QUALITY, preferred_rewards=preferred, rejected_rewards=rejected, shift=0.0)
    close(result, torch.tensor([1000.0, 0.0]))


@pytest.mark.exercise("10.7")
def test_random_rewards(student):
    preferred, rejected = torch.randn(2, 8).double()
    result = student(QUALITY, preferred_rewards=preferred, rejected_rewards=rejected, shift=-0.7)
    # exp(−loss) is the probability that one response is good and the other is not.
    close((-result).exp(), 1 / (1 + (-0.7 - preferred).exp()) / (1 + (rejected + 0.7).exp()))


# ── 10.8 and 10.9: the router ─────────────────────────────────────────────────────────────────────────────────────────

CONSISTENCY, TARGETS = "model.router:consistency_losses", "model.router:router_targets"


@pytest.mark.exercise("10.8")
def test_divergence_from_the_full_resolution(student):
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5], [0.6, 0.2, 0.2]])
    q = torch.tensor([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    rows = zip(p.tolist(), q.tolist(), strict=True)
    divergence = [sum(a * math.log(a / b) for a, b in zip(*row, strict=True)) for row in rows]
    mask = torch.tensor([[True, True], [False, True]])
    # A constant added to the logits of a token changes nothing.
    arguments = {"logits": (q.log() + 3.0).reshape(2, 2, 3), "full_logits": (p.log() - 1.0).reshape(2, 2, 3)}
    upstream = torch.tensor([2.0, 3.0])
    result, gradients = student(CONSISTENCY, **arguments, loss_mask=mask, upstream=upstream)
    close(result, torch.tensor([(divergence[0] + divergence[1]) / 2, divergence[3]]))
    expected = torch.zeros(4, 3)
    expected[:2], expected[3] = (q - p)[:2], 3 * (q - p)[3]
    close(gradients["logits"], expected.reshape(2, 2, 3))
    assert not gradients["full_logits"].any()


@pytest.mark.exercise("10.8")
def test_half_precision_is_computed_in_single(student):
    logits = torch.randn(1, 2, 50)
    mask = torch.ones(1, 2, dtype=torch.bool)
    half, full = (logits + torch.randn(1, 2, 50)).bfloat16(), logits.bfloat16()
    result = student(CONSISTENCY, logits=half, full_logits=full, loss_mask=mask)
    assert result.dtype == torch.float32
    close(result, student(CONSISTENCY, logits=half.float(), full_logits=full.float(), loss_mask=mask))


@pytest.mark.exercise("10.9")
def test_tiles_that_compression_changes_need_all_tokens(student):
    coarse, full = torch.tensor([0.3, 0.1, 0.8, 0.0, 0.5]), torch.tensor([0.1, 0.1, 0.2, 0.0, 0.0])
    arguments = {"coarse_losses": coarse, "full_losses": full, "eps": 0.1}
    targets, ratios = student(TARGETS, **arguments, threshold=2.0)
    close(ratios, torch.tensor([2.0, 1.0, 3.0, 1.0, 6.0]))
    assert targets.dtype == torch.float32 and targets.tolist()[1:] == [0, 1, 0, 1]
    assert student(TARGETS, **arguments, threshold=float(ratios[0]))[0][0] == 1
    assert student(TARGETS, **arguments, threshold=100.0)[0].tolist() == [0] * 5


@pytest.mark.exercise("10.9")
def test_losses_get_no_gradient_from_the_targets(student):
    upstream = torch.ones(2)
    arguments = {"coarse_losses": torch.tensor([1.0, 2.0]), "full_losses": torch.tensor([1.0, 1.0]), "threshold": 1.5}
    (targets, _), gradients = student(TARGETS, **arguments, upstream=upstream)
    assert targets.tolist() == [0, 1] and not any(gradient.any() for gradient in gradients.values())


@pytest.mark.exercise("10.9")
def test_the_targets_of_random_losses(student):
    coarse, full = torch.rand(2, 20)
    targets, ratios = student(TARGETS, coarse_losses=coarse, full_losses=full, threshold=1.3, eps=0.05)
    close(ratios * (full + 0.05), coarse + 0.05)
    assert targets.tolist() == [1.0 if ratio >= 1.3 else 0.0 for ratio in ratios.tolist()]


@pytest.mark.exercise("10.8")
@pytest.mark.parametrize("name", ["logits", "full_logits"])
def test_large_logits_have_a_finite_divergence(student, name):
    values = {"logits": torch.randn(1, 2, 5), "full_logits": torch.randn(1, 2, 5)}
    shifted, mask = values | {name: values[name] + 500.0}, torch.ones(1, 2).bool()
    close(student(CONSISTENCY, **shifted, loss_mask=mask), student(CONSISTENCY, **values, loss_mask=mask), 1e-3)


# ── 10.10: rotate at fractional positions ─────────────────────────────────────────────────────────────────────────────

ROTATE = "reference:rotate"


def expected_rotation(x, positions, base, sign=1.0):
    pairs = x.shape[-1] // 2
    result = torch.empty_like(x)
    for token, position in enumerate(positions):
        for pair in range(pairs):
            angle = sign * position * base ** (-pair / pairs)
            first, second = x[:, :, token, pair], x[:, :, token, pair + pairs]
            result[:, :, token, pair] = first * math.cos(angle) - second * math.sin(angle)
            result[:, :, token, pair + pairs] = second * math.cos(angle) + first * math.sin(angle)
    return result


@pytest.mark.exercise("10.10")
@pytest.mark.parametrize("positions", [[0.0, 1.0, 2.0], [0.0, 0.25, 1.25], [3.5, 7.0, 0.125]])
def test_each_pair_is_rotated_by_its_angle(student, positions):
    x, upstream = torch.randn(2, 2, 3, 6), torch.randn(2, 2, 3, 6)
    result, gradients = student(ROTATE, x=x, positions=positions, base=50.0, upstream=upstream)
    close(result, expected_rotation(x.double(), positions, 50.0))
    close(gradients["x"], expected_rotation(upstream.double(), positions, 50.0, sign=-1.0))


@pytest.mark.exercise("10.10")
def test_scores_depend_on_distances_only(student):
    x = torch.randn(1, 1, 3, 8)
    scores = []
    for shift in (0.0, 5.75):
        rotated = student(ROTATE, x=x, positions=[shift, shift + 0.5, shift + 4], base=100.0)
        scores.append(rotated[0, 0] @ rotated[0, 0].T)
    close(*scores, 1e-5)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        WEIGHTS,
        {"lengths": torch.ones(1, 2, dtype=torch.long), "exponent": 0.5},
        [(1, 2)],
        marks=pytest.mark.exercise("10.5"),
    ),
    pytest.param(
        DOCUMENTS,
        {"token_fractions": torch.ones(1), "mean_lengths": torch.ones(1)},
        [(1,)],
        marks=pytest.mark.exercise("10.6"),
    ),
    pytest.param(
        QUALITY,
        {"preferred_rewards": torch.ones(1), "rejected_rewards": torch.ones(1), "shift": 0.0},
        [(1,)],
        marks=pytest.mark.exercise("10.7"),
    ),
    pytest.param(
        TARGETS,
        {"coarse_losses": torch.ones(1), "full_losses": torch.ones(1), "threshold": 2.0},
        [(1,), (1,)],
        marks=pytest.mark.exercise("10.9"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
