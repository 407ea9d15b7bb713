"""The arms have equal numbers of active parameters, learn, and keep their experts balanced."""

import pytest
import torch

from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.experts import recorded_routings
from lessons.lesson_07_recipes.model.experts_arms import ARMS, ArmSizes, build_arm, count_parameters, loss_and_loads
from lessons.lesson_07_recipes.model.experts_balance import load_balancing_loss, max_violation, update_biases
from lessons.lesson_07_recipes.model.latent_attention_cache import cached_values_per_token

SIZES = ArmSizes(60)
TINY = ArmSizes(
    20, width=16, depth=2, heads=2, mlp_dim=24, kv_heads=1, experts=4, head_dim=8, rotary_dim=4, latent_dim=8
)


@pytest.mark.parametrize("name", ARMS)
def test_active_parameters_are_equal(name):
    model, dense = build_arm(name, SIZES), build_arm("dense", SIZES)
    assert dense.config.mlp_dim == 160
    active = count_parameters(model).active
    if name == "large":
        expected = count_parameters(build_arm("sparse", SIZES)).total
        assert 0 <= expected - active <= 3 * 64 * 3
    else:
        # One unit of an MLP, or one of every active expert, in each layer.
        assert 0 <= count_parameters(dense).active - active <= 3 * 64 * 3 * 3
    token_ids = torch.randint(60, (2, 5))
    assert model(token_ids).shape == (2, 5, 60)


def test_sparse_arms_have_more_parameters_in_total_and_latent_ones_a_smaller_cache():
    models = {name: build_arm(name, SIZES) for name in ARMS}
    totals = {name: count_parameters(model).total for name, model in models.items()}
    assert min(totals["sparse"], totals["sparse latent"]) > 2 * totals["dense"]
    cached = {name: cached_values_per_token(model.config) for name, model in models.items()}
    assert cached["dense"] == cached["sparse"] == 2 * cached["grouped"] == 16 * cached["latent"] / 3
    assert cached["latent"] == cached["sparse latent"]


def test_only_the_chosen_experts_count_as_active():
    model = build_arm("sparse", TINY)
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if "experts" in name)
    counts = count_parameters(model)
    assert counts.total - counts.active == experts // 4 * 2
    assert count_parameters(torch.nn.Linear(3, 2)).active == 8


def test_another_name_and_impossible_sizes_are_errors():
    with pytest.raises(ValueError, match="no arm is called 'mixtral'; expected one of dense"):
        build_arm("mixtral", SIZES)
    with pytest.raises(ValueError, match="parameters without its MLPs"):
        build_arm("latent", ArmSizes(20, width=16, depth=1, heads=2, mlp_dim=1, latent_dim=200))


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_learns_a_short_text_by_heart(name):
    torch.manual_seed(1)
    model = build_arm(name, TINY)
    token_ids = torch.randint(20, (4, 12))
    segments = torch.zeros_like(token_ids)
    segments[0, 8:] = -1
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(60):
        loss, loads = loss_and_loads(model, token_ids, segments)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if isinstance(model, DeepSeekV3) and loads is not None:
            update_biases(model, loads, 0.01)
    assert losses[-1] < 0.3 * losses[0]
    assert (loads is None) == ("sparse" not in name)
    if loads is not None:
        assert loads.tolist() and loads.sum().item() == 2 * (48 - 4) * 2  # layers, tokens, choices
        assert max_violation(loads).max() < 1.0


def test_the_balance_loss_is_added_with_its_weight():
    model = build_arm("sparse", TINY)
    token_ids, segments = torch.randint(20, (2, 6)), torch.zeros(2, 6, dtype=torch.long)
    without, _ = loss_and_loads(model, token_ids, segments, balance_weight=0.0)
    with_loss, _ = loss_and_loads(model, token_ids, segments, balance_weight=2.0)
    default, _ = loss_and_loads(model, token_ids, segments)
    with recorded_routings(model) as routings:
        model(token_ids)
    balance = load_balancing_loss(routings)
    torch.testing.assert_close(with_loss - without, 2 * balance)
    torch.testing.assert_close(default - without, 0.001 * balance, atol=1e-6, rtol=0)
