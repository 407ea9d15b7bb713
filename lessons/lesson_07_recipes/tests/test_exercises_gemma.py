"""Exercises 7.6 to 7.10. Each is reached through `student` alone: tensors and plain values in, tensors out."""

import math

import pytest
import torch


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 7.6: soft-capping ─────────────────────────────────────────────────────────────────────────────────────────────────

SOFT_CAP = "shared.transformer.soft_cap:soft_cap"


@pytest.mark.exercise("7.6")
@pytest.mark.parametrize("limit", [0.5, 2.0, 30.0])
def test_values_approach_the_limit_and_keep_their_order(student, limit):
    x = torch.linspace(-200, 200, 41)
    capped = student(SOFT_CAP, x=x, limit=limit)
    expected = [limit * math.tanh(value / limit) for value in x.tolist()]
    close(capped, torch.tensor(expected))
    assert capped.abs().max() <= limit
    close(capped[[0, -1]], torch.tensor([-limit, limit]), 0.1)


@pytest.mark.exercise("7.6")
def test_values_small_against_the_limit_hardly_change(student):
    x = torch.randn(4, 3)
    close(student(SOFT_CAP, x=x, limit=1000.0), x)


@pytest.mark.exercise("7.6")
def test_the_gradient_shrinks_towards_the_limit_and_is_one_at_zero(student):
    x, upstream = torch.tensor([0.0, 1.0, -3.0, 4.0]), torch.tensor([2.0, 1.0, -1.0, 3.0])
    _, gradients = student(SOFT_CAP, upstream=upstream, x=x, limit=2.0)
    close(gradients["x"], upstream * (1 - torch.tanh(x / 2) ** 2))


# ── 7.7: the norm after a part ────────────────────────────────────────────────────────────────────────────────────────

RESIDUAL = "shared.transformer.block:normalized_residual"


def residual_inputs(offset):
    return {
        "x": torch.randn(2, 3, 8) * 5,
        "update": torch.randn(2, 3, 8) * 40,
        "weight": torch.randn(8),
        "eps": 0.3,
        "offset": offset,
    }


def expected_residual(x, update, weight, eps, offset):
    root = (update.double().square().mean(-1, keepdim=True) + eps).sqrt()
    return x.double() + update.double() / root * (weight.double() + offset)


@pytest.mark.exercise("7.7")
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_only_the_update_is_normalized(student, offset):
    inputs = residual_inputs(offset)
    close(student(RESIDUAL, **inputs), expected_residual(**inputs))


@pytest.mark.exercise("7.7")
def test_a_part_that_grows_adds_no_larger_vector(student):
    inputs = residual_inputs(1.0) | {"eps": 1e-6}
    louder = inputs | {"update": inputs["update"] * 1000}
    close(student(RESIDUAL, **louder), student(RESIDUAL, **inputs), 1e-4)


@pytest.mark.exercise("7.7")
def test_residual_stream_update_and_weight_receive_gradients(student):
    inputs, upstream = residual_inputs(1.0), torch.randn(2, 3, 8)
    _, gradients = student(RESIDUAL, upstream=upstream, **inputs)
    names = ("x", "update", "weight")
    doubles = {name: inputs[name].double().requires_grad_() for name in names}
    expected = torch.autograd.grad(expected_residual(**(inputs | doubles)), list(doubles.values()), upstream.double())
    for name, gradient in zip(names, expected, strict=True):
        close(gradients[name], gradient, 1e-4)


@pytest.mark.exercise("7.7")
def test_half_precision_is_kept(student):
    inputs = {
        name: value.bfloat16() if torch.is_tensor(value) else value for name, value in residual_inputs(1.0).items()
    }
    result = student(RESIDUAL, **inputs)
    assert result.dtype == torch.bfloat16
    close(result, expected_residual(**inputs), 0.1)


# ── 7.8: the window of each layer ─────────────────────────────────────────────────────────────────────────────────────

LAYERS = "model.gemma:layer_mask_matrices"


def reach(matrix):
    """Return how many tokens the last token attends to."""
    return int(matrix[-1].sum())


@pytest.mark.exercise("7.8")
@pytest.mark.parametrize(
    ("depth", "global_every", "expected"),
    [
        (1, 2, [3]),
        (5, 2, [3, 9, 3, 9, 3]),
        (6, 2, [3, 9, 3, 9, 3, 9]),
        (7, 6, [3, 3, 3, 3, 3, 9, 3]),
        (7, 3, [3, 3, 9, 3, 3, 9, 3]),
        (3, 1, [9, 9, 9]),
    ],
)
def test_local_layers_come_before_each_global_one(student, depth, global_every, expected):
    masks = student(LAYERS, depth=depth, window=3, tokens=9, global_every=global_every)
    assert masks.shape == (depth, 9, 9)
    assert [reach(mask) for mask in masks] == expected


@pytest.mark.exercise("7.8")
@pytest.mark.parametrize("window", [1, 4, 20])
def test_every_layer_is_causal_and_local_ones_have_the_window(student, window):
    local, everywhere = student(LAYERS, depth=2, window=window, tokens=9)
    distance = torch.arange(9)[:, None] - torch.arange(9)
    assert torch.equal(local, (distance >= 0) & (distance < window))
    assert torch.equal(everywhere, distance >= 0)


@pytest.mark.exercise("7.8")
def test_a_random_number_of_layers(student):
    depth, global_every, window = (int(torch.randint(2, 9, ())) for _ in range(3))
    masks = student(LAYERS, depth=depth, window=window, tokens=11, global_every=global_every)
    assert len(masks) == depth
    numbers_of_global_layers = range(global_every, depth + 1, global_every)
    for number, mask in enumerate(masks, start=1):
        assert reach(mask) == (11 if number in numbers_of_global_layers else window), (depth, global_every, window)


# ── 7.9: the span of the prefix ───────────────────────────────────────────────────────────────────────────────────────

SPANS, PREFIX_MASK = "model.paligemma:prefix_spans", "model.paligemma:prefix_mask_matrix"
ROWS = {
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 1]]),
    # The second row ends with padding, whose type is 0; the third holds two examples.
    "segments": torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, -1, -1], [0, 0, 0, 1, 1, 1]]),
}


@pytest.mark.exercise("7.9")
def test_prefixes_are_spans_and_suffixes_and_padding_are_none(student):
    spans = student(SPANS, **ROWS)
    assert spans.tolist() == [[0, 0, 0, -1, -1, -1], [0, -1, -1, -1, -1, -1], [0, 0, -1, 1, 1, -1]]


@pytest.mark.exercise("7.9")
def test_the_prefix_attends_in_both_directions_and_the_suffix_is_causal(student):
    visible = student(PREFIX_MASK, **ROWS).int()
    assert visible[0].tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1],
    ]
    assert visible[1].sum(-1).tolist() == [1, 2, 3, 4, 0, 0]
    assert visible[2].tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]


@pytest.mark.exercise("7.9")
def test_without_a_suffix_everything_is_visible_and_without_a_prefix_the_past(student):
    segments = torch.zeros(1, 5, dtype=torch.long)
    assert student(PREFIX_MASK, token_type_ids=torch.zeros_like(segments), segments=segments).all()
    causal = student(PREFIX_MASK, token_type_ids=torch.ones_like(segments), segments=segments)
    assert torch.equal(causal[0], torch.ones(5, 5).tril().bool())


@pytest.mark.exercise("7.9")
def test_the_spans_of_random_rows(student):
    types, segments = torch.randint(0, 2, (3, 8)), torch.randint(-1, 3, (3, 8))
    spans = student(SPANS, token_type_ids=types, segments=segments)
    for row in range(3):
        for token in range(8):
            assert spans[row, token] == (-1 if types[row, token] == 1 else segments[row, token])


# ── 7.10: YaRN frequencies ────────────────────────────────────────────────────────────────────────────────────────────

YARN = "shared.transformer.rotary_scaling:yarn_frequencies"


def frequencies_of(pairs, base):
    return base ** -(torch.arange(pairs) / pairs)


def expected_divided(pairs, base, context, rotations, truncate):
    """Return, pair by pair, the fraction of the frequency that is divided by the factor."""
    # Pair i rotates r = context · base^(−i / pairs) / 2π times.
    limits = [pairs * math.log(context / (2 * math.pi * each), base) for each in rotations]
    if truncate:
        limits = [math.floor(limits[0]), math.ceil(limits[1])]
    first, last = max(0, limits[0]), min(2 * pairs - 1, limits[1])
    if first == last:
        return torch.tensor([float(pair > first) for pair in range(pairs)], dtype=torch.float64)
    return torch.tensor(
        [min(1.0, max(0.0, (pair - first) / (last - first))) for pair in range(pairs)], dtype=torch.float64
    )


CASES = [
    {"base": 10_000.0, "original_context": 4096},
    {"base": 500.0, "original_context": 700, "rotations": (12.0, 2.5)},
    {"base": 500.0, "original_context": 700, "rotations": (12.0, 2.5), "truncate": False},
    {"base": 500.0, "original_context": 700, "rotations": (4.0, 4.0), "truncate": False},
    {"base": 500.0, "original_context": 60, "rotations": (32.0, 1.0)},  # no pair rotates 32 times
    {"base": 500.0, "original_context": 60, "rotations": (32.0, 10.0)},  # nor 10 times: both limits are 0
    {"base": 500.0, "original_context": 10**6, "rotations": (40.0, 1.5)},  # every pair rotates more than 1.5 times
    {"base": 500.0, "original_context": 10**6, "rotations": (40.0, 1.5), "truncate": False},
    {"base": 10.0, "original_context": 10**15, "rotations": (1e14, 1.0), "truncate": False},
]


@pytest.mark.exercise("7.10")
@pytest.mark.parametrize("pairs", [2, 7, 32])
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_fast_pairs_stay_slow_ones_are_divided_and_the_rest_is_mixed(student, case, pairs):
    frequencies = frequencies_of(pairs, case["base"])
    result = student(YARN, frequencies=frequencies, factor=8.0, **case)
    rotations, truncate = case.get("rotations", (32.0, 1.0)), case.get("truncate", True)
    divided = expected_divided(pairs, case["base"], case["original_context"], rotations, truncate)
    expected = frequencies.double() * (divided / 8 + (1 - divided))
    torch.testing.assert_close(result.double() / frequencies, expected / frequencies, atol=1e-5, rtol=0)
    assert result.dtype == torch.float32


@pytest.mark.exercise("7.10")
def test_a_factor_of_one_changes_nothing(student):
    frequencies = frequencies_of(16, 10_000.0)
    close(student(YARN, frequencies=frequencies, base=10_000.0, factor=1.0, original_context=4096), frequencies)


@pytest.mark.exercise("7.10")
def test_frequencies_receive_the_gradient_of_the_mixture(student):
    case = CASES[1]
    frequencies, upstream = frequencies_of(12, case["base"]), torch.randn(12)
    _, gradients = student(YARN, upstream=upstream, frequencies=frequencies, factor=5.0, **case)
    divided = expected_divided(12, case["base"], case["original_context"], case["rotations"], True)
    close(gradients["frequencies"], upstream * (divided / 5 + 1 - divided))


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(SOFT_CAP, {"x": torch.ones(1, 2), "limit": 2.0}, [(1, 2)], marks=pytest.mark.exercise("7.6")),
    pytest.param(
        RESIDUAL,
        {"x": torch.ones(1, 1, 3), "update": torch.ones(1, 1, 3), "weight": torch.ones(3), "eps": 1e-6},
        [(1, 1, 3)],
        marks=pytest.mark.exercise("7.7"),
    ),
    pytest.param(
        YARN,
        {"frequencies": torch.ones(1), "base": 100.0, "factor": 2.0, "original_context": 64},
        [(1,)],
        marks=pytest.mark.exercise("7.10"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
