"""The exercises of this lesson: each test checks a property, and every planted bug breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 1.1 and 1.3: patches ──────────────────────────────────────────────────────────────────────────────────────────────

PATCHES = [
    pytest.param("reference:patchify", marks=pytest.mark.exercise("1.1")),
    pytest.param("model.patches:patchify", marks=pytest.mark.exercise("1.3")),
]


@pytest.mark.parametrize("function", PATCHES)
@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 4, 6), 2), ((1, 1, 8, 8), 4), ((2, 2, 9, 3), 3), ((1, 2, 3, 2), 1)]
)
def test_every_pixel_has_its_index(student, function, shape, size):
    images = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    patches = student(function, images=images, patch_size=size)
    batch, channels, height, width = shape
    assert patches.shape == (batch, height // size * (width // size), size * size * channels)
    for b in range(batch):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    patch = y // size * (width // size) + x // size
                    index = (y % size * size + x % size) * channels + c
                    assert patches[b, patch, index] == images[b, c, y, x]


@pytest.mark.parametrize("function", PATCHES)
def test_each_pixel_gets_its_gradient(student, function):
    images, upstream = torch.randn(2, 3, 4, 6), torch.randn(2, 6, 12)
    patches, gradients = student(function, upstream=upstream, images=images, patch_size=2)
    # Patches are a permutation of the pixels: the gradient of <patches, upstream> is upstream in the original order.
    close((patches * upstream).sum(), (images * gradients["images"]).sum(), 1e-4)
    assert sorted(gradients["images"].flatten().tolist()) == pytest.approx(sorted(upstream.flatten().tolist()))


# ── 1.2: attention ────────────────────────────────────────────────────────────────────────────────────────────────────

ATTENTION = "reference:scaled_dot_product_attention"


def attention_arguments(*, tokens=5, head_dim=3, value_dim=3):
    return {
        "query": torch.randn(2, 2, tokens, head_dim),
        "key": torch.randn(2, 2, tokens, head_dim),
        "value": torch.randn(2, 2, tokens, value_dim),
    }


@pytest.mark.exercise("1.2")
def test_attention_weights_sum_to_one_and_average_the_values(student):
    arguments = attention_arguments()
    output, weights = student(ATTENTION, **arguments)
    assert weights.shape == (2, 2, 5, 5)
    assert (weights > 0).all()
    close(weights.sum(-1), torch.ones(2, 2, 5))
    close(output, weights @ arguments["value"].double())


@pytest.mark.exercise("1.2")
def test_equal_keys_get_equal_weights(student):
    arguments = attention_arguments()
    arguments["key"] = arguments["key"][..., :1, :].expand(2, 2, 5, 3)
    output, weights = student(ATTENTION, **arguments)
    close(weights, torch.full((2, 2, 5, 5), 0.2))
    close(output, arguments["value"].mean(-2, keepdim=True).expand(2, 2, 5, 3))


@pytest.mark.exercise("1.2")
@pytest.mark.parametrize("head_dim", [1, 4, 9])
def test_scores_are_divided_by_the_root_of_the_head_dimension(student, head_dim):
    arguments = attention_arguments(tokens=2, head_dim=head_dim)
    _, weights = student(ATTENTION, **arguments)
    score = (arguments["query"][..., :1, :] * arguments["key"]).sum(-1)
    # With two keys, the ratio of their weights is exp of the difference of their scores.
    odds = (weights[..., 0, 0] / weights[..., 0, 1]).log()
    close(odds, (score[..., 0] - score[..., 1]) / math.sqrt(head_dim), 1e-4)


@pytest.mark.exercise("1.2")
def test_attention_gradients_equal_pytorch(student):
    arguments, upstream = attention_arguments(value_dim=4), torch.randn(2, 2, 5, 4)
    _, gradients = student(ATTENTION, upstream=upstream, **arguments)
    inputs = [arguments[name].double().requires_grad_() for name in ("query", "key", "value")]
    expected = torch.autograd.grad(F.scaled_dot_product_attention(*inputs), inputs, upstream.double())
    for name, gradient in zip(("query", "key", "value"), expected, strict=True):
        assert gradient.abs().max() > 0.01
        close(gradients[name], gradient, 1e-4)


@pytest.mark.exercise("1.2")
def test_large_scores_select_one_value(student):
    arguments = attention_arguments()
    arguments["query"] = arguments["query"] * 1e6
    output, weights = student(ATTENTION, **arguments)
    best = (arguments["query"] @ arguments["key"].mT).argmax(dim=-1)
    assert torch.equal(weights.argmax(dim=-1), best)
    close(output, arguments["value"].gather(2, best[..., None].expand(2, 2, 5, 3)), 1e-3)


# ── 1.4: positions on another grid ────────────────────────────────────────────────────────────────────────────────────

INTERPOLATE = "model.positions:interpolate_positions"


@pytest.mark.exercise("1.4")
@pytest.mark.parametrize(
    ("values", "old", "new", "antialias", "expected"),
    [
        (
            [0, 1, 4, 2],
            (4, 1),
            (8, 1),
            False,
            [-0.10547, 0.12109, 0.45703, 1.85547, 3.56641, 3.86328, 2.55859, 1.78906],
        ),
        ([0, 1, 4, 2, 8, 3], (1, 6), (1, 3), False, [0.21875, 2.71875, 6.0625]),
        ([0, 1, 4, 2, 8, 3], (1, 6), (1, 3), True, [0.77406, 3.43511, 5.18828]),
        ([0, 1, 4, 9, 16, 25], (2, 3), (3, 2), False, [-0.75985, 1.63224, 5.19531, 13.28125, 11.15047, 24.93026]),
    ],
)
def test_positions_are_resized_as_bicubic_images(student, values, old, new, antialias, expected):
    positions = torch.tensor(values, dtype=torch.float32)[:, None] * torch.tensor([1.0, -2.0])
    resized = student(INTERPOLATE, positions=positions, old_grid=old, new_grid=new, antialias=antialias)
    close(resized, torch.tensor(expected)[:, None] * torch.tensor([1.0, -2.0]), 1e-4)


@pytest.mark.exercise("1.4")
@pytest.mark.parametrize("antialias", [False, True])
def test_rows_and_columns_are_resized_independently(student, antialias):
    """Positions that depend on the row only still do so after resizing, and likewise for columns."""
    by_row = torch.randn(4, 1, 3).expand(4, 5, 3)
    by_column = torch.randn(1, 5, 3).expand(4, 5, 3)
    old, new = (4, 5), (6, 7)
    rows, columns = (
        student(INTERPOLATE, positions=p.reshape(20, 3), old_grid=old, new_grid=new, antialias=antialias).reshape(
            6, 7, 3
        )
        for p in (by_row, by_column)
    )
    close(rows, rows[:, :1].expand(6, 7, 3))
    close(columns, columns[:1].expand(6, 7, 3))
    assert (rows[0] - rows[-1]).abs().max() > 0.01 and (columns[:, 0] - columns[:, -1]).abs().max() > 0.01


@pytest.mark.exercise("1.4")
def test_every_old_position_gets_a_gradient(student):
    positions = torch.randn(12, 2)
    _, gradients = student(
        INTERPOLATE, upstream=torch.ones(35, 2), positions=positions, old_grid=(3, 4), new_grid=(5, 7)
    )
    # Each new position is a weighted sum of old ones whose weights add up to one.
    close(gradients["positions"].sum(0), torch.full((2,), 35.0), 1e-3)
    assert (gradients["positions"].abs() > 0.5).all()


@pytest.mark.exercise("1.4")
def test_half_precision_is_resized_in_float32(student):
    positions = torch.randn(16, 64).bfloat16()
    half = student(INTERPOLATE, positions=positions, old_grid=(4, 4), new_grid=(7, 5))
    full = student(INTERPOLATE, positions=positions.float(), old_grid=(4, 4), new_grid=(7, 5))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.bfloat16())


# ── 1.5: the masked autoencoder's loss ────────────────────────────────────────────────────────────────────────────────

MASKED_LOSS = "model.mae:masked_loss"


@pytest.mark.exercise("1.5")
def test_masked_loss_by_hand(student):
    patches = torch.tensor([[[1.0, 3.0], [0.0, 8.0], [5.0, 5.0]]])
    predictions = torch.tensor([[[0.0, 2.0], [9.0, 9.0], [1.0, 0.0]]])
    masked = torch.tensor([[True, False, True]])
    plain = student(MASKED_LOSS, predictions=predictions, patches=patches, masked=masked, normalize=False)
    assert plain.item() == pytest.approx(((1 + 1) / 2 + (16 + 25) / 2) / 2)
    # Normalized, the first patch becomes ∓1/√2 and the flat one 0.
    first = ((0 + 2**-0.5) ** 2 + (2 - 2**-0.5) ** 2) / 2
    normalized = student(MASKED_LOSS, predictions=predictions, patches=patches, masked=masked)
    assert normalized.item() == pytest.approx((first + 1 / 2) / 2, rel=1e-4)


@pytest.mark.exercise("1.5")
def test_a_patch_with_little_contrast_is_not_amplified(student):
    """Its variance is 1e-6, equal to the constant under the root: ±√½·10⁻³ becomes ±½."""
    faint = torch.tensor([[[1.0, -1.0]]]) * 0.5**0.5 * 1e-3
    loss = student(MASKED_LOSS, predictions=torch.zeros(1, 1, 2), patches=faint, masked=torch.tensor([[True]]))
    assert loss.item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.exercise("1.5")
def test_every_masked_patch_of_the_batch_has_the_same_weight(student):
    patches, predictions = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)
    masked = torch.tensor([[True, False, False, False], [True, True, True, False]])
    predictions[0, 0] = 2.0  # one of four masked patches is off by 2 everywhere
    loss = student(MASKED_LOSS, predictions=predictions, patches=patches, masked=masked, normalize=False)
    assert loss.item() == pytest.approx(4 / 4)


@pytest.mark.exercise("1.5")
@pytest.mark.parametrize("normalize", [False, True])
def test_only_errors_of_masked_patches_have_a_gradient(student, normalize):
    patches, predictions = torch.randn(3, 6, 8), torch.randn(3, 6, 8)
    masked = torch.rand(3, 6) < 0.5
    arguments = {"predictions": predictions, "patches": patches, "masked": masked, "normalize": normalize}
    _, gradients = student(MASKED_LOSS, upstream=torch.tensor(1.0), **arguments)
    target = patches
    if normalize:
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.std(-1, keepdim=True) ** 2 + 1e-6) ** 0.5
    expected = 2 * (predictions - target) * masked[..., None] / (masked.sum() * 8)
    close(gradients["predictions"], expected)


@pytest.mark.exercise("1.5")
def test_brightness_and_contrast_do_not_change_the_normalized_loss(student):
    patches, predictions = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    masked = torch.tensor([[True, True, False, True, False]] * 2)
    brighter = patches * (0.5 + torch.rand(2, 5, 1)) + torch.randn(2, 5, 1)
    one, other = (student(MASKED_LOSS, predictions=predictions, patches=p, masked=masked) for p in (patches, brighter))
    close(one, other, 1e-4)
    plain = [
        student(MASKED_LOSS, predictions=predictions, patches=p, masked=masked, normalize=False)
        for p in (patches, brighter)
    ]
    assert (plain[0] - plain[1]).abs() > 0.01


# ── 1.6: distillation ─────────────────────────────────────────────────────────────────────────────────────────────────

DISTILLATION = "model.distillation:hard_distillation_loss"


def distillation_arguments():
    return {
        "class_logits": torch.randn(6, 4),
        "distillation_logits": torch.randn(6, 4),
        "labels": torch.tensor([0, 1, 2, 3, 0, 1]),
        "teacher_logits": F.one_hot(torch.tensor([0, 1, 3, 3, 2, 0]), 4) * 3.0 + torch.rand(6, 4),
    }


@pytest.mark.exercise("1.6")
def test_distillation_by_hand(student):
    loss = student(
        DISTILLATION,
        class_logits=torch.tensor([[2.0, 0.0], [0.0, 0.0]]),
        distillation_logits=torch.tensor([[0.0, 1.0], [3.0, 0.0]]),
        labels=torch.tensor([0, 1]),
        teacher_logits=torch.tensor([[0.1, 0.9], [-1.0, 5.0]]),
    )
    by_label = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    by_teacher = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
    assert loss.item() == pytest.approx(0.5 * by_label + 0.5 * by_teacher, rel=1e-5)


@pytest.mark.exercise("1.6")
def test_class_logits_learn_from_labels_and_distillation_logits_from_the_teacher(student):
    arguments = distillation_arguments()
    _, gradients = student(DISTILLATION, upstream=torch.tensor(1.0), **arguments)
    for name, targets in (("class", arguments["labels"]), ("distillation", torch.tensor([0, 1, 3, 3, 2, 0]))):
        error = arguments[f"{name}_logits"].softmax(-1) - F.one_hot(targets, 4)
        close(gradients[f"{name}_logits"], 0.5 * error / 6)
    assert (gradients["teacher_logits"] == 0).all()


@pytest.mark.exercise("1.6")
def test_the_teachers_confidence_has_no_effect(student):
    arguments = distillation_arguments()
    confident = arguments | {"teacher_logits": arguments["teacher_logits"] * 10 - 3}
    close(student(DISTILLATION, **arguments), student(DISTILLATION, **confident))


@pytest.mark.exercise("1.6")
def test_large_logits_have_a_finite_loss(student):
    arguments = distillation_arguments()
    large = {name: arguments[name] * 1000 for name in ("class_logits", "distillation_logits")}
    loss, gradients = student(DISTILLATION, upstream=torch.tensor(1.0), **arguments | large)
    teacher = torch.tensor([0, 1, 3, 3, 2, 0])
    gaps = [
        (logits.amax(dim=1) - logits.gather(1, targets[:, None])[:, 0]).mean().item() / 2
        for logits, targets in zip(large.values(), (arguments["labels"], teacher), strict=True)
    ]
    assert loss.item() == pytest.approx(sum(gaps), rel=1e-3)
    assert gradients["class_logits"].isfinite().all()


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        INTERPOLATE,
        {"positions": torch.ones(6, 1), "old_grid": (2, 3), "new_grid": (1, 2)},
        [(2, 1)],
        marks=pytest.mark.exercise("1.4"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
