"""The exercises on experts and latent attention. Each is reached through `student` alone."""

import math

import pytest
import torch


def close(result, expected, tolerance=1e-5):
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 7.1: weights of the chosen experts ────────────────────────────────────────────────────────────────────────────────

CHOICE = "model.experts:choose_experts"


@pytest.mark.exercise("7.1")
@pytest.mark.parametrize("chosen", [1, 2, 3, 5])
def test_the_largest_logits_are_chosen_the_largest_first(student, chosen):
    logits = torch.randn(4, 6, 5)
    _, indices = student(CHOICE, logits=logits, chosen=chosen)
    for row, numbers in zip(logits.flatten(0, 1).tolist(), indices.flatten(0, 1).tolist(), strict=True):
        assert numbers == sorted(range(5), key=lambda expert: -row[expert])[:chosen]


@pytest.mark.exercise("7.1")
def test_the_weights_are_a_softmax_over_the_chosen_logits_only(student):
    weights, indices = student(CHOICE, logits=torch.tensor([[0.0, 2.0, 5.0, 1.0]]), chosen=2)
    assert indices.tolist() == [[2, 1]]
    close(weights, torch.tensor([[1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))]]))


@pytest.mark.exercise("7.1")
def test_the_weights_of_every_token_of_a_batch_add_up_to_one(student):
    weights, indices = student(CHOICE, logits=torch.randn(4, 6, 5), chosen=3)
    assert weights.shape == indices.shape == (4, 6, 3)
    close(weights.sum(-1), torch.ones(4, 6))


@pytest.mark.exercise("7.1")
def test_only_chosen_logits_have_a_gradient(student):
    logits, upstream = torch.tensor([[0.0, 2.0, 5.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    _, gradients = student(CHOICE, upstream=upstream, logits=logits, chosen=2)
    derivative = 1 / (1 + math.exp(-3)) * 1 / (1 + math.exp(3))
    close(gradients["logits"], torch.tensor([[0.0, -derivative, derivative, 0.0]]))


@pytest.mark.exercise("7.1")
def test_large_logits_have_finite_weights(student):
    weights, _ = student(CHOICE, logits=torch.randn(4, 6, 5) + 1000, chosen=2)
    close(weights.sum(-1), torch.ones(4, 6))


# ── 7.2: the load-balancing loss ──────────────────────────────────────────────────────────────────────────────────────

BALANCE = "model.experts_balance:balance_loss"


def probabilities_and_indices(tokens, experts, chosen):
    logits = torch.randn(tokens, experts)
    return logits.softmax(-1), logits.topk(chosen).indices


@pytest.mark.exercise("7.2")
@pytest.mark.parametrize(("tokens", "experts", "chosen"), [(7, 4, 1), (10, 3, 2), (5, 8, 3)])
def test_the_loss_is_computed_as_by_hand(student, tokens, experts, chosen):
    probabilities, indices = probabilities_and_indices(tokens, experts, chosen)
    loss = 0.0
    for expert in range(experts):
        times = sum(row.count(expert) for row in indices.tolist()) / tokens
        loss += experts * times * probabilities[:, expert].mean().item()
    assert student(BALANCE, probabilities=probabilities, indices=indices).item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.exercise("7.2")
def test_experts_that_no_token_chooses_count_too(student):
    """The last experts are not chosen: their number must not be taken from the indices."""
    probabilities = torch.full((6, 5), 0.2)
    result = student(BALANCE, probabilities=probabilities, indices=torch.tensor([[0], [1], [0], [1], [2], [2]]))
    assert result.item() == pytest.approx(1.0)


@pytest.mark.exercise("7.2")
def test_the_gradient_of_a_probability_is_how_often_its_expert_is_chosen(student):
    probabilities, indices = probabilities_and_indices(10, 3, 2)
    _, gradients = student(BALANCE, upstream=torch.tensor(1.0), probabilities=probabilities, indices=indices)
    counts = torch.tensor([sum(row.count(expert) for row in indices.tolist()) for expert in range(3)])
    close(gradients["probabilities"], (3 * counts / 10 / 10).expand(10, 3))


# ── 7.3: the bias update ──────────────────────────────────────────────────────────────────────────────────────────────

BIAS = "model.experts_balance:updated_bias"


@pytest.mark.exercise("7.3")
def test_every_bias_moves_by_the_speed_toward_balance(student):
    bias = torch.tensor([0.1, -0.2, 0.3, 0.0])
    result = student(BIAS, bias=bias, loads=torch.tensor([100, 0, 21, 19]), speed=0.01)
    close(result, torch.tensor([0.09, -0.19, 0.31, 0.01]), 1e-7)


@pytest.mark.exercise("7.3")
def test_an_expert_with_the_mean_load_keeps_its_bias(student):
    """The step does not grow with the distance from the mean, which is not the median."""
    bias = torch.tensor([1.0, 2.0, 3.0])
    result = student(BIAS, bias=bias, loads=torch.tensor([10, 1, 19]), speed=0.5)
    close(result, torch.tensor([1.0, 2.5, 2.5]), 1e-7)
    result = student(BIAS, bias=bias, loads=torch.tensor([5.0, 6.0, 100.0]), speed=0.5)
    close(result, torch.tensor([1.5, 2.5, 2.5]), 1e-7)


@pytest.mark.exercise("7.3")
def test_repeated_updates_bring_loads_together(student):
    """Two experts: 900 tokens prefer the first by more or less, 100 the second."""
    advantage = torch.cat([torch.linspace(0, 1, 900), torch.linspace(-1, 0, 100)])
    bias = torch.zeros(2)
    for _ in range(300):
        first = int((advantage + bias[0] - bias[1] > 0).sum())
        bias = student(BIAS, bias=bias, loads=torch.tensor([first, 1000 - first]), speed=0.002)
    assert abs(first - 500) < 15


@pytest.mark.exercise("7.3")
def test_random_loads_change_random_biases(student):
    bias, loads = torch.randn(7), torch.randint(0, 50, (7,))
    total = int(loads.sum())
    expected = []
    for value, load in zip(bias.tolist(), loads.tolist(), strict=True):
        change = 0.0 if 7 * load == total else 0.03 if 7 * load < total else -0.03
        expected.append(value + change)
    close(student(BIAS, bias=bias, loads=loads, speed=0.03), torch.tensor(expected), 1e-6)


# ── 7.4: latents in pure Python ───────────────────────────────────────────────────────────────────────────────────────

LATENTS = "reference:latent_keys_and_values"
PLAIN = "reference:plain_attention"
HEADS, HEAD_DIM, ROTARY_DIM, VALUE_DIM, LATENT_DIM, WIDTH = 3, 4, 6, 5, 7, 8


def latent_weights():
    return {
        "x": torch.randn(2, 5, WIDTH).double(),
        "down": torch.randn(LATENT_DIM + ROTARY_DIM, WIDTH).double() * 0.5,
        "norm": torch.rand(LATENT_DIM).double() + 0.5,
        "up": torch.randn(HEADS * (HEAD_DIM + VALUE_DIM), LATENT_DIM).double() * 0.5,
    }


def rotated(x):
    """Rotate pairs (i, i + half) of [batch, tokens, dim] by the token's position."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] * 10_000.0 ** (-torch.arange(half).double() / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def expected_keys_and_values(x, down, norm, up):
    """Head by head, with PyTorch."""
    latents = x @ down[:LATENT_DIM].T
    latents = latents / (latents.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm
    shared = rotated(x @ down[LATENT_DIM:].T)
    keys, values = [], []
    for rows in up.split(HEAD_DIM + VALUE_DIM):
        keys.append(torch.cat([latents @ rows[:HEAD_DIM].T, shared], dim=-1))
        values.append(latents @ rows[HEAD_DIM:].T)
    return torch.stack(keys, dim=1), torch.stack(values, dim=1)


@pytest.mark.exercise("7.4")
def test_keys_and_values_of_every_head(student):
    weights = latent_weights()
    keys, values = student(LATENTS, **weights, heads=HEADS, head_dim=HEAD_DIM)
    for result, expected in zip((keys, values), expected_keys_and_values(**weights), strict=True):
        assert result.shape == expected.shape
        close(result, expected, 1e-9)


@pytest.mark.exercise("7.4")
def test_they_have_gradients_to_every_weight(student):
    weights, queries = latent_weights(), torch.randn(2, HEADS, 5, HEAD_DIM + ROTARY_DIM).double()
    upstream = torch.randn(2, HEADS, 5, VALUE_DIM).double()
    copies = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    keys, values = expected_keys_and_values(**copies)
    scores = queries @ keys.transpose(2, 3) / (HEAD_DIM + ROTARY_DIM) ** 0.5
    later = torch.ones(5, 5).triu(1).bool()
    expected = scores.masked_fill(later, -torch.inf).softmax(-1) @ values
    expected.backward(upstream)
    result, gradients = student(PLAIN, upstream=upstream, queries=queries, **weights, head_dim=HEAD_DIM)
    close(result, expected.detach(), 1e-9)
    for name, copy in copies.items():
        close(gradients[name], copy.grad, 1e-8)


# ── 7.5: absorbed decoding ────────────────────────────────────────────────────────────────────────────────────────────

ABSORBED = "model.latent_attention:absorbed_attention"


def entries_and_queries(tokens):
    return {
        "queries": torch.randn(2, HEADS, tokens, HEAD_DIM + ROTARY_DIM).double(),
        "entries": torch.randn(2, 9, LATENT_DIM + ROTARY_DIM).double(),
        "expansion": torch.randn(HEADS, HEAD_DIM + VALUE_DIM, LATENT_DIM).double(),
    }


def expected_attention(queries, entries, expansion):
    """Expand first, then attend, one head at a time."""
    outputs = []
    for head in range(HEADS):
        key_rows, value_rows = expansion[head].split([HEAD_DIM, VALUE_DIM])
        latents, shared = entries.split([LATENT_DIM, ROTARY_DIM], dim=-1)
        keys = torch.cat([latents @ key_rows.T, shared], dim=-1)
        weights = (queries[:, head] @ keys.transpose(1, 2) / (HEAD_DIM + ROTARY_DIM) ** 0.5).softmax(-1)
        outputs.append(weights @ (latents @ value_rows.T))
    return torch.stack(outputs, dim=1)


@pytest.mark.exercise("7.5")
@pytest.mark.parametrize("tokens", [1, 4])
def test_absorbed_attention_equals_attention_to_expanded_keys(student, tokens):
    arguments = entries_and_queries(tokens)
    result = student(ABSORBED, **arguments, head_dim=HEAD_DIM)
    close(result, expected_attention(**arguments), 1e-9)


@pytest.mark.exercise("7.5")
def test_its_gradients_are_equal_too(student):
    arguments = entries_and_queries(2)
    upstream = torch.randn(2, HEADS, 2, VALUE_DIM).double()
    copies = {name: tensor.clone().requires_grad_() for name, tensor in arguments.items()}
    expected_attention(**copies).backward(upstream)
    _, gradients = student(ABSORBED, upstream=upstream, **arguments, head_dim=HEAD_DIM)
    for name, copy in copies.items():
        close(gradients[name], copy.grad, 1e-8)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        BIAS,
        {"bias": torch.ones(1), "loads": torch.tensor([3]), "speed": 0.1},
        [(1,)],
        marks=pytest.mark.exercise("7.3"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
