"""The experts: routing against direct computations, and what each token and each expert receives."""

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_07_recipes.model.deepseek_router import SigmoidRouter
from lessons.lesson_07_recipes.model.experts import (
    Experts,
    Router,
    SparseMLP,
    TopKRouter,
    choose_experts,
    recorded_routings,
)
from shared.testing import redraw_weights
from shared.transformer import SwiGLU


def sparse_mlp(experts=6, chosen=2, *, shared=None, router_class=TopKRouter):
    router = router_class(8, experts, chosen)
    return redraw_weights(SparseMLP(router, Experts(experts, 8, 5), shared), buffers=True).double()


def all_experts(mlp, x):
    """Every expert's output for every token, as one would write it down: [experts, batch, tokens, width]."""
    layers = zip(mlp.experts.gate, mlp.experts.up, mlp.experts.down, strict=True)
    return torch.stack([(F.silu(x @ gate.T) * (x @ up.T)) @ down.T for gate, up, down in layers])


# ── Routing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_weights_are_a_softmax_over_the_chosen_logits():
    weights, indices = choose_experts(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), 2)
    assert indices.tolist() == [[1, 3]]
    torch.testing.assert_close(weights, torch.tensor([[3.0, 2.0]]).softmax(-1))


def test_the_weights_equal_renormalized_probabilities():
    """The other way to write it, and the way in which the published class computes it."""
    logits = torch.randn(20, 7)
    weights, indices = choose_experts(logits, 3)
    probabilities = logits.softmax(-1).gather(-1, indices)
    torch.testing.assert_close(weights, probabilities / probabilities.sum(-1, keepdim=True))


@pytest.mark.parametrize("chosen", [1, 2, 6])
@pytest.mark.parametrize("router_class", [TopKRouter, SigmoidRouter])
def test_outputs_and_gradients_equal_those_of_all_experts_with_weights_of_zero(router_class, chosen):
    mlp = sparse_mlp(chosen=chosen, router_class=router_class)
    x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 5, 8, dtype=torch.float64)
    parameters = [x, *mlp.parameters()]
    output = mlp(x)
    gradients = torch.autograd.grad(output, parameters, upstream, allow_unused=True, materialize_grads=True)
    routing = mlp.router(x)
    dense = torch.zeros_like(routing.logits).scatter(-1, routing.indices, routing.weights)
    expected = torch.einsum("bte,ebtw->btw", dense, all_experts(mlp, x))
    torch.testing.assert_close(output, expected)
    expected_gradients = torch.autograd.grad(expected, parameters, upstream, allow_unused=True, materialize_grads=True)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def test_an_expert_that_no_token_chooses_is_not_computed_and_has_no_gradient():
    mlp = sparse_mlp(chosen=1)
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    mlp(x).sum().backward()
    used = mlp.router(x).indices.unique().tolist()
    unused = [expert for expert in range(6) if expert not in used]
    assert unused
    for weight in mlp.experts.parameters():
        assert not weight.grad[unused].any() and weight.grad[used].flatten(1).any(dim=1).all()
        weight.data[unused] = torch.nan
    assert mlp(x).isfinite().all()


def test_one_expert_is_a_plain_mlp():
    mlp, plain = sparse_mlp(1, 1), SwiGLU(8, 5).double()
    for name in ("gate", "up", "down"):
        getattr(plain, name).weight.data = getattr(mlp.experts, name).data[0]
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(mlp(x), plain(x))


def test_every_token_also_passes_through_the_shared_expert():
    mlp = sparse_mlp(shared=SwiGLU(8, 9))
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    output = mlp(x)
    shared, mlp.shared = mlp.shared, None
    torch.testing.assert_close(output, mlp(x) + shared(x))


def test_the_router_computes_in_float32_when_the_model_does_not():
    router = redraw_weights(TopKRouter(8, 4, 2)).bfloat16()
    x = torch.randn(1, 3, 8).bfloat16()
    routing = router(x)
    assert routing.logits.dtype == routing.weights.dtype == torch.float32
    torch.testing.assert_close(routing.logits, x.float() @ router.weight.float().T)
    mlp = SparseMLP(router, Experts(4, 8, 5).bfloat16())
    assert mlp(x).dtype == torch.bfloat16


@pytest.mark.parametrize(("experts", "chosen"), [(4, 5), (4, 0), (4, -1)])
def test_more_experts_than_there_are_cannot_be_chosen(experts, chosen):
    with pytest.raises(ValueError, match=f"{chosen} of {experts} experts can't be chosen"):
        TopKRouter(8, experts, chosen)


def test_routings_are_recorded_inside_the_context_only():
    model = torch.nn.Sequential(sparse_mlp(), torch.nn.Identity(), sparse_mlp(4, 1, router_class=SigmoidRouter))
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with recorded_routings(model) as routings:
        model(x)
        assert [tuple(routing.logits.shape) for routing in routings] == [(2, 3, 6), (2, 3, 4)]
        model(x)
    model(x)
    assert len(routings) == 4
    torch.testing.assert_close(routings[0].logits, model[0].router(x).logits)
    assert routings[0].logits.requires_grad
    assert all(not module._forward_hooks for module in model.modules() if isinstance(module, Router))


# ── DeepSeek-V3's router ──────────────────────────────────────────────────────────────────────────────────────────────


def routed(**options):
    router = SigmoidRouter(8, 12, 3, **options).double()
    redraw_weights(router, buffers=True)
    return router, torch.randn(3, 10, 8, dtype=torch.float64)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("groups", "groups_per_token"), [(1, 1), (4, 2), (3, 3), (2, 1)])
def test_experts_are_chosen_by_biased_scores_within_the_best_groups(groups, groups_per_token, normalize):
    """Against the rule in plain Python, token by token."""
    router, x = routed(groups=groups, groups_per_token=groups_per_token, normalize_weights=normalize, scale=2.5)
    routing = router(x)
    size = 12 // groups
    for token, weights, indices in zip(
        x.flatten(0, 1), routing.weights.flatten(0, 1), routing.indices.flatten(0, 1), strict=True
    ):
        scores = torch.sigmoid(router.weight @ token).tolist()
        biased = [score + bias for score, bias in zip(scores, router.bias.tolist(), strict=True)]
        members = [range(group * size, (group + 1) * size) for group in range(groups)]
        ranked = sorted(members, key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:2]))
        allowed = [expert for group in ranked[:groups_per_token] for expert in group]
        expected = sorted(allowed, key=lambda expert: -biased[expert])[:3]
        assert sorted(indices.tolist()) == sorted(expected)
        total = sum(scores[expert] for expert in expected) if normalize else 1.0
        for weight, expert in zip(weights.tolist(), indices.tolist(), strict=True):
            assert weight == pytest.approx(2.5 * scores[expert] / total)


def test_the_bias_changes_the_choice_but_never_the_weights():
    router, x = routed(normalize_weights=False)
    router.bias.zero_()
    before = router(x)
    router.bias[5] = 10.0
    after = router(x)
    assert (after.indices == 5).any(-1).all() and not (before.indices == 5).any(-1).all()
    torch.testing.assert_close(after.weights, after.logits.sigmoid().gather(-1, after.indices))
    assert not router.bias.requires_grad and "bias" in router.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 5}, "12 experts do not divide into 5 groups"),
        ({"groups": 12, "groups_per_token": 4}, "12 groups of at least 2"),
        ({"groups": 3, "groups_per_token": 4}, "choose from 4 of 3 groups"),
        ({"groups": 3, "groups_per_token": 0}, "choose from 0 of 3 groups"),
        ({"groups": 6, "groups_per_token": 1}, "3 experts can't be chosen per token from 1 groups with 2 experts"),
    ],
)
def test_groups_that_do_not_fit_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        SigmoidRouter(8, 12, 3, **options)
