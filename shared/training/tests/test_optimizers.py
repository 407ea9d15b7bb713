import pytest
import torch
from torch import nn

from shared.training.muon import Muon, orthogonalize
from shared.training.optimizers import build_optimizers, decayed_parameters, muon_parameters, set_learning_rate


class Small(nn.Module):
    """One of each kind of parameter that the rules distinguish."""

    def __init__(self):
        super().__init__()
        self.patch_embedding = nn.Linear(6, 8)
        self.words = nn.Embedding(5, 8)
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(4, 8))
        self.up = nn.Linear(8, 12)
        self.norm = nn.LayerNorm(12)
        self.convolution = nn.Conv1d(12, 12, 3)
        self.head = nn.Linear(12, 2)


def test_weight_decay_is_for_matrices_only():
    assert decayed_parameters(Small()) == {"patch_embedding.weight", "up.weight", "convolution.weight", "head.weight"}


def test_muon_takes_hidden_matrices_only():
    assert muon_parameters(Small()) == {"up.weight"}


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_every_parameter_belongs_to_exactly_one_group(name):
    model = Small()
    optimizers = build_optimizers(model, name, 0.1, 0.05, (0.9, 0.999))
    grouped = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_tied_weights_are_updated_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    (optimizer,) = build_optimizers(model, "adamw", 0.1, 0.05, (0.9, 0.999))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 3


def test_adamw_against_its_formula():
    """Algorithm 2 of arXiv:1711.05101, written out in float64 for three steps."""
    model = nn.Linear(3, 2).double()
    (optimizer,) = build_optimizers(model, "adamw", 0.01, 0.1, (0.8, 0.95))
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in expected.items()}
    second = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(1, 4):
        for name, parameter in model.named_parameters():
            gradient = parameter.grad = torch.randn_like(parameter)
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            mean, square = first[name] / (1 - 0.8**step), second[name] / (1 - 0.95**step)
            decay = 0.1 if name == "weight" else 0.0
            expected[name] = expected[name] - 0.01 * decay * expected[name] - 0.01 * mean / (square.sqrt() + 1e-8)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-10, atol=1e-12)


def test_sgd_against_its_formula():
    model = nn.Linear(3, 2).double()
    (optimizer,) = build_optimizers(model, "sgd", 0.1, 0.2, (0.9, 0.999))
    weight, velocity = model.weight.detach().clone(), torch.zeros(2, 3, dtype=torch.float64)
    for step in range(3):
        gradient = model.weight.grad = torch.randn_like(weight)
        decayed = gradient + 0.2 * weight
        velocity = decayed if step == 0 else 0.9 * velocity + decayed
        weight = weight - 0.1 * (decayed + 0.9 * velocity)
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), weight)


def test_newton_schulz_brings_every_singular_value_near_one():
    for shape in [(20, 20), (12, 30), (30, 12), (3, 8, 16)]:
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.3 and values.max() < 1.3
    # The singular vectors stay: the result points in the direction of U Vᵀ.
    matrix = torch.randn(16, 24)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(orthogonalize(matrix).flatten(), (u @ vt).flatten(), dim=0) > 0.97


def test_newton_schulz_is_invariant_to_scale_and_equivariant_to_transposition():
    matrix = torch.randn(8, 20)
    torch.testing.assert_close(orthogonalize(1000 * matrix), orthogonalize(matrix), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(orthogonalize(matrix.mT), orthogonalize(matrix).mT, rtol=1e-4, atol=1e-5)
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muon_against_its_formula():
    """Momentum, Nesterov, orthogonalization by an exact singular value decomposition, scale and decay, three steps."""
    weight = nn.Parameter(torch.randn(6, 10))
    optimizer = Muon([weight], learning_rate=0.1, weight_decay=0.2, momentum=0.9)
    expected, momentum = weight.detach().clone(), torch.zeros(6, 10)
    for _ in range(3):
        gradient = weight.grad = torch.randn(6, 10)
        momentum = 0.9 * momentum + 0.1 * gradient
        lookahead = 0.9 * momentum + 0.1 * gradient
        # Newton–Schulz applies the quintic to the singular values without computing them.
        u, values, vt = torch.linalg.svd(lookahead, full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        expected = expected * (1 - 0.1 * 0.2) - 0.1 * 0.2 * 10**0.5 * (u * values) @ vt
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-4)


def test_muon_against_pytorchs_own():
    course, reference = (nn.Parameter(torch.linspace(-1, 1, 48).reshape(6, 8).sin()) for _ in range(2))
    optimizers = [
        Muon([course], learning_rate=0.05, weight_decay=0.1),
        torch.optim.Muon([reference], lr=0.05, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(4):
        course.grad = torch.randn(6, 8)
        reference.grad = course.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    # PyTorch's iteration runs in bfloat16, which has about three decimal digits.
    torch.testing.assert_close(course.detach(), reference.detach(), rtol=0.05, atol=4e-3)


def test_muons_update_is_as_large_as_adamws():
    weight = nn.Parameter(torch.zeros(64, 256))
    optimizer = Muon([weight], learning_rate=1.0)
    weight.grad = torch.randn(64, 256)
    optimizer.step()
    assert 0.15 < weight.detach().square().mean().sqrt() < 0.25


def test_muon_refuses_a_parameter_that_is_not_a_matrix():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], learning_rate=0.1)


def test_a_parameter_without_gradient_does_not_even_decay():
    for name in ("adamw", "muon", "sgd"):
        model = Small()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        optimizers = build_optimizers(model, name, 0.1, 0.5, (0.9, 0.999))
        model.head.weight.grad = torch.ones_like(model.head.weight)
        for optimizer in optimizers:
            optimizer.step()
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        assert changed == {"head.weight"}


def test_the_learning_rate_reaches_every_group():
    optimizers = build_optimizers(Small(), "muon", 0.1, 0.05, (0.9, 0.999))
    set_learning_rate(optimizers, 0.003)
    assert {group["lr"] for optimizer in optimizers for group in optimizer.param_groups} == {0.003}


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="'lion'"):
        build_optimizers(Small(), "lion", 0.1, 0.05, (0.9, 0.999))
