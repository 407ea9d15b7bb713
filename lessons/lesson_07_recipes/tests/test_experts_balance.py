"""Losses against hand-made and published ones; the bias update balances a skewed router."""

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lessons.lesson_07_recipes.model import experts_balance as balance
from lessons.lesson_07_recipes.model.deepseek_router import SigmoidRouter
from lessons.lesson_07_recipes.model.experts import Experts, Routing, SparseMLP, choose_experts, recorded_routings


def random_routings(layers=3, experts=5, chosen=2, *, gain=1.0):
    logits = [gain * torch.randn(2, 6, experts) for _ in range(layers)]
    return [Routing(each.requires_grad_(), *choose_experts(each, chosen)) for each in logits]


MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()

# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equal_use_gives_k_and_collapse_gives_n():
    experts, chosen = 6, 2
    even = torch.tensor([[token % experts, (token + 1) % experts] for token in range(12)])
    assert balance.balance_loss(torch.full((12, experts), 1 / experts), even).item() == pytest.approx(chosen)
    collapsed = torch.zeros(12, experts)
    collapsed[:, 3] = 1.0
    assert balance.balance_loss(collapsed, torch.tensor([[3, 0]]).expand(12, 2)).item() == pytest.approx(experts)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chosen", [1, 2, 5])
def test_the_loss_of_all_layers_equals_the_published_one(chosen, masked):
    routings = random_routings(chosen=chosen, gain=2.0)
    expected = load_balancing_loss_func(
        tuple(routing.logits.flatten(0, 1) for routing in routings), 5, chosen, MASK if masked else None
    )
    torch.testing.assert_close(balance.load_balancing_loss(routings, MASK if masked else None), expected)


def test_its_gradient_moves_probability_from_used_to_unused_experts():
    logits = torch.zeros(4, 3, requires_grad=True)
    balance.balance_loss(logits.softmax(-1), torch.tensor([[0], [0], [0], [1]])).backward()
    assert (logits.grad[:, 0] > 0).all() and (logits.grad[:, 2] < 0).all()


def test_the_z_loss_is_the_mean_square_of_the_log_partition_function():
    routings = random_routings()
    expected = torch.stack(
        [
            torch.log(torch.exp(routing.logits[row, token]).sum()) ** 2
            for routing in routings
            for row in range(2)
            for token in range(6)
            if MASK[row, token]
        ]
    ).mean()
    torch.testing.assert_close(balance.router_z_loss(routings, MASK), expected)
    assert balance.router_z_loss(routings).item() != pytest.approx(expected.item())


def sequence_loss_by_hand(routing, mask):
    """Equations 17 to 20 of the paper, one sequence, expert and token at a time."""
    losses = []
    for row in range(2):
        tokens = [token for token in range(6) if mask[row, token]]
        scores = routing.logits[row].sigmoid()
        loss = 0.0
        for expert in range(5):
            hits = sum(expert in scores[token].topk(2).indices.tolist() for token in tokens)
            mean = sum((scores[token, expert] / scores[token].sum()).item() for token in tokens) / len(tokens)
            loss += 5 / (2 * len(tokens)) * hits * mean
        losses.append(loss)
    return sum(losses) / 2


def test_the_sequence_wise_loss_equals_the_papers_equations():
    routings = random_routings(layers=2)
    for mask in (MASK, torch.ones_like(MASK)):
        expected = sum(sequence_loss_by_hand(routing, mask) for routing in routings) / 2
        assert balance.sequence_balance_loss(routings, mask).item() == pytest.approx(expected, rel=1e-5)
    assert balance.sequence_balance_loss(routings).item() == pytest.approx(expected, rel=1e-5)


def test_the_sequence_wise_loss_punishes_a_sequence_with_a_single_topic():
    """Two sequences, each with an expert of its own: balanced as a batch, not as sequences."""
    logits = torch.full((2, 6, 4), -4.0)
    logits[0, :, :2] = logits[1, :, 2:] = 4.0
    one_topic = [Routing(logits, *choose_experts(logits, 2))]
    swapped = logits.clone()
    swapped[0, 3:], swapped[1, 3:] = logits[1, 3:], logits[0, 3:]
    mixed = [Routing(swapped, *choose_experts(swapped, 2))]
    assert balance.load_balancing_loss(one_topic).item() == pytest.approx(balance.load_balancing_loss(mixed).item())
    assert balance.sequence_balance_loss(mixed).item() == pytest.approx(1.0, rel=1e-4)
    assert balance.sequence_balance_loss(one_topic) > 1.9


# ── Balancing without a loss ──────────────────────────────────────────────────────────────────────────────────────────


def test_biases_of_overloaded_experts_fall_and_of_underloaded_ones_rise():
    bias = balance.updated_bias(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([7, 4, 1]), 0.25)
    assert bias.tolist() == [0.25, 0.5, 0.75]


def test_repeated_updates_balance_a_skewed_router():
    router = SigmoidRouter(16, 8, 2)
    router.weight.data[0] += 1.0  # an expert that most tokens score highest
    model = SparseMLP(router, Experts(8, 16, 4))
    x = torch.randn(1, 4000, 16) + 0.2

    def violation():
        with torch.no_grad(), recorded_routings(model) as routings:
            model(x)
        return balance.expert_loads(routings)

    before = balance.max_violation(violation()).item()
    for _ in range(400):
        with torch.no_grad():
            loads = violation()
        balance.update_biases(model, loads, 0.003)
    after = balance.max_violation(violation()).item()
    assert before > 1.0 and after < 0.1


def test_loads_of_another_number_of_layers_are_an_error():
    model = SparseMLP(SigmoidRouter(4, 4, 1), Experts(4, 4, 4))
    with pytest.raises(ValueError, match="loads of 2 layers for 1 routers"):
        balance.update_biases(model, torch.ones(2, 4, dtype=torch.long))


# ── Use of the experts ────────────────────────────────────────────────────────────────────────────────────────────────


def test_loads_use_and_violation_by_hand():
    indices = torch.tensor([[[0, 1], [0, 2], [0, 3]]])
    routing = Routing(torch.zeros(1, 3, 4), torch.full((1, 3, 2), 0.5), indices)
    loads = balance.expert_loads([routing, routing])
    assert loads.tolist() == [[3, 1, 1, 1]] * 2
    torch.testing.assert_close(balance.expert_use(loads)[0], torch.tensor([3, 1, 1, 1]) / 6)
    assert balance.max_violation(loads).tolist() == pytest.approx([1.0, 1.0])  # n/k − 1: every token chooses expert 0
    masked = balance.expert_loads([routing], torch.tensor([[True, False, True]]))
    assert masked.tolist() == [[2, 1, 0, 1]]
