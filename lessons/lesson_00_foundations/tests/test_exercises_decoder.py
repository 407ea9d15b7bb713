"""The exercises of the decoder: each test says what must hold, and a small mistake breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(given, expected, tolerance=1e-6):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


# ── 0.41: rotary positions ────────────────────────────────────────────────────────────────────────────────────────────

ROTATE = "decoder.reference:rotate"


@pytest.mark.exercise("0.41")
def test_each_pair_turns_by_its_own_angle(student):
    x = torch.randn(2, 3, 5, 4)
    turned = student(ROTATE, x=x, base=100.0)
    # As numbers of the plane: the pairs (0, 2) and (1, 3) turn by 1 and by 1/10 a place.
    plane = torch.complex(x[..., :2].double(), x[..., 2:].double())
    speed = torch.tensor([1.0, 0.1], dtype=torch.float64)
    expected = plane * torch.exp(1j * torch.arange(5)[:, None] * speed)
    close(turned, torch.cat([expected.real, expected.imag], dim=-1))


@pytest.mark.exercise("0.41")
def test_scores_depend_on_the_distance_alone(student):
    query, key = torch.randn(1, 1, 4, 6), torch.randn(1, 1, 4, 6)
    scores = [
        student(ROTATE, x=query, start=start) @ student(ROTATE, x=key, start=start).transpose(-1, -2)
        for start in (0, 7)
    ]
    close(scores[0], scores[1])
    moved = student(ROTATE, x=query, start=7) @ student(ROTATE, x=key).transpose(-1, -2)
    assert (moved - scores[0]).abs().max() > 0.01


@pytest.mark.exercise("0.41")
def test_turning_lets_every_gradient_through(student):
    x, upstream = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    turned, gradients = student(ROTATE, upstream=upstream, x=x)
    # Turning keeps lengths and is linear, so the gradient is `upstream` turned back.
    close((turned * upstream).sum(), (x * gradients["x"]).sum())
    close(gradients["x"].norm(), upstream.norm())


# ── 0.42: grouped causal attention ────────────────────────────────────────────────────────────────────────────────────

ATTENTION = "decoder.reference:grouped_causal_attention"


def attention_arguments():
    return {"query": torch.randn(2, 4, 5, 3), "key": torch.randn(2, 2, 5, 3), "value": torch.randn(2, 2, 5, 3)}


@pytest.mark.exercise("0.42")
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_it_is_what_pytorch_computes_with_repeated_keys(student, kv_heads):
    arguments = {
        "query": torch.randn(2, 4, 5, 6),
        "key": torch.randn(2, kv_heads, 5, 6),
        "value": torch.randn(2, kv_heads, 5, 6),
    }
    upstream = torch.randn(2, 4, 5, 6)
    gathered, gradients = student(ATTENTION, upstream=upstream, **arguments)
    inputs = [arguments[name].double().requires_grad_() for name in ("query", "key", "value")]
    repeated = [inputs[0], *(x.repeat_interleave(4 // kv_heads, dim=1) for x in inputs[1:])]
    expected = F.scaled_dot_product_attention(*repeated, is_causal=True)
    close(gathered, expected)
    for name, gradient in zip(
        ("query", "key", "value"), torch.autograd.grad(expected, inputs, upstream.double()), strict=True
    ):
        close(gradients[name], gradient)


@pytest.mark.exercise("0.42")
def test_what_is_to_come_changes_nothing(student):
    arguments = attention_arguments()
    before = student(ATTENTION, **arguments)
    for name in ("key", "value"):
        arguments[name] = torch.cat([arguments[name][:, :, :3], torch.randn(2, 2, 2, 3)], dim=2)
    after = student(ATTENTION, **arguments)
    close(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] - after[:, :, 3:]).abs().max() > 0.01
    close(before[:, :, 0], arguments["value"][:, [0, 0, 1, 1], 0])


# ── 0.43: weights of 8 bits ───────────────────────────────────────────────────────────────────────────────────────────

QUANTIZE = "decoder.quantized:quantize"


@pytest.mark.exercise("0.43")
def test_numbers_one_can_check_by_hand(student):
    numbers, scale = student(QUANTIZE, weight=torch.tensor([[1.0, -2.54, 0.013], [0.0, 0.0, 0.0], [1e-4, 0.0, -5e-5]]))
    assert numbers.dtype == torch.int8 and numbers.tolist() == [[50, -127, 1], [0, 0, 0], [127, 0, -64]]
    close(scale, torch.tensor([[0.02], [1.0], [1e-4 / 127]]), 1e-7)


@pytest.mark.exercise("0.43")
def test_no_weight_is_off_by_more_than_half_its_rows_scale(student):
    weight = torch.randn(7, 33) * torch.logspace(-3, 3, 7)[:, None]
    numbers, scale = student(QUANTIZE, weight=weight)
    assert numbers.abs().amax(dim=1).tolist() == [127] * 7
    error = (numbers * scale - weight).abs()
    assert (error <= 0.501 * scale).all() and (error > 0.3 * scale).any(dim=1).all()


# ── 0.44: Kneser–Ney ──────────────────────────────────────────────────────────────────────────────────────────────────

INTERPOLATED = "decoder.ngram:interpolated"


def step(student, counts, below):
    """The chances of all tokens at once, as tensors of one number a token."""
    kinds, total = sum(count > 0 for count in counts), sum(counts)
    return [
        student(INTERPOLATED, count=count, kinds=kinds, total=total, discount=0.5, below=chance)
        for count, chance in zip(torch.tensor(counts), torch.tensor(below), strict=True)
    ]


@pytest.mark.exercise("0.44")
@pytest.mark.parametrize("counts", [[3, 1, 0, 0], [5, 5, 5, 5], [0, 0, 1, 0]])
def test_a_step_keeps_a_distribution_a_distribution(student, counts):
    assert sum(step(student, counts, [0.4, 0.3, 0.2, 0.1])).item() == pytest.approx(1.0)


@pytest.mark.exercise("0.44")
def test_a_step_of_numbers_one_can_check_by_hand(student):
    chances = step(student, [3, 1, 0, 0], [0.4, 0.3, 0.2, 0.1])
    freed = 0.5 * 2 / 4
    expected = [2.5 / 4 + freed * 0.4, 0.5 / 4 + freed * 0.3, freed * 0.2, freed * 0.1]
    assert [chance.item() for chance in chances] == pytest.approx(expected)


# ── 0.45: the loss of the next token ──────────────────────────────────────────────────────────────────────────────────

LOSS = "decoder.model.language_model:next_token_loss"


def loss_arguments():
    return {
        "logits": torch.randn(2, 6, 5),
        "token_ids": torch.randint(5, (2, 6)),
        "segments": torch.tensor([[0, 0, 0, 1, 1, -1], [0, 0, 0, 0, 0, 0]]),
    }


@pytest.mark.exercise("0.45")
def test_each_row_is_asked_for_the_token_after_it(student):
    arguments = loss_arguments()
    logits, tokens = arguments["logits"], arguments["token_ids"]
    asked = [(0, 0), (0, 1), (0, 3), *((1, place) for place in range(5))]
    expected = [-math.log(logits[b, place].softmax(-1)[tokens[b, place + 1]]) for b, place in asked]
    assert student(LOSS, **arguments).item() == pytest.approx(sum(expected) / 8, rel=1e-5)


@pytest.mark.exercise("0.45")
def test_nothing_is_asked_across_documents_or_of_padding(student):
    _, gradients = student(LOSS, upstream=torch.tensor(1.0), **loss_arguments())
    pulled = gradients["logits"].abs().sum(-1) > 0
    assert pulled.tolist() == [[True, True, False, True, False, False], [True] * 5 + [False]]
