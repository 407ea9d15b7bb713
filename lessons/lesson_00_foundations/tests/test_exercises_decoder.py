"""The exercises of the part `decoder`: each test checks a property that small mistakes break."""

import math

import pytest
import torch
from torch.nn import functional as F


def assert_close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 0.41: rotary positions ────────────────────────────────────────────────────────────────────────────────────────────

ROTATE = "decoder.reference:rotate"


@pytest.mark.exercise("0.41")
def test_each_pair_rotates_by_its_own_angle(student):
    x = torch.randn(2, 3, 5, 4)
    rotated = student(ROTATE, x=x, base=100.0)
    # As complex numbers: the pairs (0, 2) and (1, 3) rotate by 1 and by 1/10 per position.
    plane = torch.complex(x[..., :2].double(), x[..., 2:].double())
    frequency = torch.tensor([1.0, 0.1], dtype=torch.float64)
    expected = plane * torch.exp(1j * torch.arange(5)[:, None] * frequency)
    assert_close(rotated, torch.cat([expected.real, expected.imag], dim=-1))


@pytest.mark.exercise("0.41")
def test_scores_depend_on_the_distance_alone(student):
    query, key = torch.randn(1, 1, 4, 6), torch.randn(1, 1, 4, 6)
    scores = [
        student(ROTATE, x=query, start=start) @ student(ROTATE, x=key, start=start).transpose(-1, -2)
        for start in (0, 7)
    ]
    assert_close(scores[0], scores[1])
    moved = student(ROTATE, x=query, start=7) @ student(ROTATE, x=key).transpose(-1, -2)
    assert (moved - scores[0]).abs().max() > 0.01


@pytest.mark.exercise("0.41")
def test_the_gradient_of_a_rotation_is_rotated_back(student):
    x, upstream = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    rotated, gradients = student(ROTATE, upstream=upstream, x=x)
    # A rotation is linear and preserves lengths, so the gradient is `upstream` rotated back.
    assert_close((rotated * upstream).sum(), (x * gradients["x"]).sum())
    assert_close(gradients["x"].norm(), upstream.norm())


# ── 0.42: grouped causal attention ────────────────────────────────────────────────────────────────────────────────────

ATTENTION = "decoder.reference:grouped_causal_attention"


def attention_arguments():
    return {"query": torch.randn(2, 4, 5, 3), "key": torch.randn(2, 2, 5, 3), "value": torch.randn(2, 2, 5, 3)}


@pytest.mark.exercise("0.42")
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_equals_pytorchs_with_repeated_keys(student, kv_heads):
    arguments = {
        "query": torch.randn(2, 4, 5, 6),
        "key": torch.randn(2, kv_heads, 5, 6),
        "value": torch.randn(2, kv_heads, 5, 6),
    }
    upstream = torch.randn(2, 4, 5, 6)
    attended, gradients = student(ATTENTION, upstream=upstream, **arguments)
    inputs = [arguments[name].double().requires_grad_() for name in ("query", "key", "value")]
    repeated = [inputs[0], *(x.repeat_interleave(4 // kv_heads, dim=1) for x in inputs[1:])]
    expected = F.scaled_dot_product_attention(*repeated, is_causal=True)
    assert_close(attended, expected)
    for name, gradient in zip(
        ("query", "key", "value"), torch.autograd.grad(expected, inputs, upstream.double()), strict=True
    ):
        assert_close(gradients[name], gradient)


@pytest.mark.exercise("0.42")
def test_later_tokens_do_not_change_earlier_outputs(student):
    arguments = attention_arguments()
    before = student(ATTENTION, **arguments)
    for name in ("key", "value"):
        arguments[name] = torch.cat([arguments[name][:, :, :3], torch.randn(2, 2, 2, 3)], dim=2)
    after = student(ATTENTION, **arguments)
    assert_close(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] - after[:, :, 3:]).abs().max() > 0.01
    assert_close(before[:, :, 0], arguments["value"][:, [0, 0, 1, 1], 0])


@pytest.mark.exercise("0.42")
def test_large_scores_have_finite_weights(student):
    arguments = attention_arguments()
    arguments["query"] = arguments["query"] * 3000
    repeated = [arguments["query"].double(), *(arguments[n].double().repeat_interleave(2, 1) for n in ("key", "value"))]
    assert_close(student(ATTENTION, **arguments), F.scaled_dot_product_attention(*repeated, is_causal=True), 1e-5)


# ── 0.43: weights of 8 bits ───────────────────────────────────────────────────────────────────────────────────────────

QUANTIZE = "decoder.experiment.int8:quantize"


@pytest.mark.exercise("0.43")
def test_quantization_computed_by_hand(student):
    values, scale = student(QUANTIZE, weight=torch.tensor([[1.0, -2.54, 0.013], [0.0, 0.0, 0.0], [1e-4, 0.0, -5e-5]]))
    assert values.dtype == torch.int8 and values.tolist() == [[50, -127, 1], [0, 0, 0], [127, 0, -64]]
    assert_close(scale, torch.tensor([[0.02], [1.0], [1e-4 / 127]]), 1e-7)


@pytest.mark.exercise("0.43")
def test_the_error_is_at_most_half_of_the_rows_scale(student):
    weight = torch.randn(7, 33) * torch.logspace(-3, 3, 7)[:, None]
    values, scale = student(QUANTIZE, weight=weight)
    assert values.abs().amax(dim=1).tolist() == [127] * 7
    error = (values * scale - weight).abs()
    assert (error <= 0.501 * scale).all() and (error > 0.3 * scale).any(dim=1).all()


# ── 0.44: Kneser–Ney ──────────────────────────────────────────────────────────────────────────────────────────────────

INTERPOLATE = "decoder.experiment.ngram:interpolate"


def step(student, counts, lower_order, discount=0.5):
    """Return the probabilities of all tokens, as tensors of one number per token."""
    distinct, total = sum(count > 0 for count in counts), sum(counts)
    return [
        student(INTERPOLATE, count=count, distinct=distinct, total=total, discount=discount, lower_order=probability)
        for count, probability in zip(torch.tensor(counts), torch.tensor(lower_order), strict=True)
    ]


@pytest.mark.exercise("0.44")
@pytest.mark.parametrize("counts", [[3, 1, 0, 0], [5, 5, 5, 5], [0, 0, 1, 0]])
def test_a_step_returns_a_distribution(student, counts):
    assert sum(step(student, counts, [0.4, 0.3, 0.2, 0.1])).item() == pytest.approx(1.0)


@pytest.mark.exercise("0.44")
def test_a_step_computed_by_hand(student):
    probabilities = step(student, [3, 1, 0, 0], [0.4, 0.3, 0.2, 0.1])
    freed = 0.5 * 2 / 4
    expected = [2.5 / 4 + freed * 0.4, 0.5 / 4 + freed * 0.3, freed * 0.2, freed * 0.1]
    assert [probability.item() for probability in probabilities] == pytest.approx(expected)


@pytest.mark.exercise("0.44")
def test_what_the_discount_takes_is_spread_by_the_lower_order(student):
    counts = [1, *torch.randint(0, 6, (5,)).tolist()]
    lower_order, discount = torch.rand(6).softmax(0), torch.rand(()).item()
    retained = torch.tensor([0.0 if count == 0 else (count - discount) / sum(counts) for count in counts])
    expected = retained + (1 - retained.sum()) * lower_order
    probabilities = step(student, counts, lower_order.tolist(), discount)
    assert [probability.item() for probability in probabilities] == pytest.approx(expected.tolist(), rel=1e-4)


# ── 0.45: the loss of the next token ──────────────────────────────────────────────────────────────────────────────────

LOSS = "decoder.model.language_model:next_token_loss"


def loss_arguments():
    return {
        "logits": torch.randn(2, 6, 5),
        "token_ids": torch.randint(5, (2, 6)),
        "segments": torch.tensor([[0, 0, 0, 1, 1, -1], [0, 0, 0, 0, 0, 0]]),
    }


@pytest.mark.exercise("0.45")
def test_each_position_predicts_the_next_token(student):
    arguments = loss_arguments()
    logits, token_ids = arguments["logits"], arguments["token_ids"]
    predicting = [(0, 0), (0, 1), (0, 3), *((1, position) for position in range(5))]
    expected = [-math.log(logits[row, i].softmax(-1)[token_ids[row, i + 1]]) for row, i in predicting]
    assert student(LOSS, **arguments).item() == pytest.approx(sum(expected) / 8, rel=1e-5)


@pytest.mark.exercise("0.45")
def test_no_token_is_predicted_across_documents_or_from_padding(student):
    _, gradients = student(LOSS, upstream=torch.tensor(1.0), **loss_arguments())
    has_gradient = gradients["logits"].abs().sum(-1) > 0
    assert has_gradient.tolist() == [[True, True, False, True, False, False], [True] * 5 + [False]]


@pytest.mark.exercise("0.45")
def test_the_loss_of_large_logits_is_finite(student):
    arguments = loss_arguments()
    large = arguments | {"logits": arguments["logits"] * 1000}
    doubled = arguments | {"logits": arguments["logits"] * 2000}
    # For large logits the cross-entropy is a difference of two logits, which doubles with them.
    loss = student(LOSS, **large).item()
    assert loss > 100 and student(LOSS, **doubled).item() == pytest.approx(2 * loss, rel=1e-4)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(QUANTIZE, {"weight": torch.ones(1, 3)}, [(1, 3), (1, 1)], marks=pytest.mark.exercise("0.43")),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
